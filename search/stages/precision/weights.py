"""Weights as small integers and a scale for each output channel. Knows neither torch nor ONNX.

Training and storage both call ``quantize_weights``. It gives the weights ``codes * scale`` the same codes and scales
again, bit by bit, so that weights that were trained on the grid are stored without loss; and the same codes after each
channel was multiplied by a number. Scales have 16 significant bits for that: with up to 7 of a code, a product is exact
in the 24 of a float.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TERNARY_THRESHOLD = 0.7  # of the mean magnitude: Li et al., "Ternary Weight Networks", 2016, equation 6
SCALE_BITS = 16
CLIPS = np.linspace(1.0, 0.4, 13)  # of the largest magnitude; starts with all of it, so that ties clip nothing

Codes = NDArray[np.int8]
Floats = NDArray[np.float32]


def quantize_weights(weight: np.ndarray, bits: int, *, clip: bool = False) -> tuple[Codes, Floats]:
    """The codes and scales that stand for ``weight``; ``codes * scale`` are the weights that are computed with.

    8 and 4 bits: whole numbers from -127 to 127, from -7 to 7. 3 bits: the eight odd numbers from -7 to 7. 2 bits:
    -1, 0 and 1 (Ternary Weight Networks, arXiv 1605.04711). 1 bit: -1 and 1, times the mean magnitude
    (XNOR-Net, arXiv 1603.05279). Every grid is symmetric.

    Args:
        weight: (out, ...), float; one scale for each output channel.
        bits: 8, 4, 3, 2 or 1.
        clip: for 3 bits and more, choose the scale of the least squared error, which cuts off outliers, and not the
            one that reaches the largest weight. Worth it for weights that were not trained on the grid.

    Returns:
        Codes, int8 of the weight's shape, and scales, float32 (out, 1, ...). A channel of zeros has scale 0.

    Raises:
        ValueError: another number of bits, or a weight that is not finite.
    """
    if bits not in {8, 4, 3, 2, 1}:
        raise ValueError(f"weights are stored in 8, 4, 3, 2 or 1 bits, not in {bits}")
    flat = np.asarray(weight, np.float64).reshape(len(weight), -1)
    if not np.isfinite(flat).all():
        raise ValueError("weights to quantize must be finite")
    if bits == 1:
        codes, scale = np.where(flat < 0, -1, 1), _rounded(np.abs(flat).mean(1, keepdims=True))
    elif bits == 2:
        codes, scale = _ternary(flat)
    else:
        scale = _least_error(flat, bits) if clip else _top(flat, bits)
        codes = _nearest(flat, scale, bits)
    ones = (1,) * (np.ndim(weight) - 1)
    return codes.reshape(np.shape(weight)).astype(np.int8), scale.reshape(len(flat), *ones).astype(np.float32)


def _ternary(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = np.abs(flat)
    kept = size > TERNARY_THRESHOLD * size.mean(1, keepdims=True)
    count = np.maximum(kept.sum(1, keepdims=True), 1)
    return np.sign(flat) * kept, _rounded((size * kept).sum(1, keepdims=True) / count)


def _top(flat: np.ndarray, bits: int) -> np.ndarray:
    """The scale with which the largest code stands for the largest magnitude, (out, 1)."""
    return _rounded(np.abs(flat).max(1, keepdims=True) / (127 if bits == 8 else 7))


def _nearest(flat: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    units = flat / np.where(scale > 0, scale, 1)
    if bits == 3:
        return np.clip(2 * np.floor(units / 2) + 1, -7, 7)
    largest = 127 if bits == 8 else 7
    return np.clip(np.rint(units), -largest, largest)


def _least_error(flat: np.ndarray, bits: int) -> np.ndarray:
    """The scale among ``CLIPS`` of the top one with the least squared error, for each channel."""
    scales = [_rounded(_top(flat, bits) * ratio) for ratio in CLIPS]
    errors = [((_nearest(flat, scale, bits) * scale - flat) ** 2).sum(1) for scale in scales]
    best = np.argmin(errors, axis=0)
    return np.stack(scales)[best, np.arange(len(flat))]


def _rounded(scale: np.ndarray) -> np.ndarray:
    """``scale`` in ``SCALE_BITS`` significant bits."""
    mantissa, exponent = np.frexp(scale)
    return np.ldexp(np.rint(np.ldexp(mantissa, SCALE_BITS)), exponent - SCALE_BITS)
