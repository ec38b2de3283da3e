"""Weights as whole numbers times a scale for each output channel: the one convention for training and storing them.

==========  ==================  ==========================================================================
bits        codes               scale
==========  ==================  ==========================================================================
3 to 8      -qmax … qmax        max |w| / qmax, with qmax = 2 ** (bits - 1) - 1
2           -1, 0, 1            mean |w| of the kept weights, those above 0.7 mean |w|
1           -1, 1               mean |w|
==========  ==================  ==========================================================================

Two bits are Ternary Weight Networks (Li et al., arXiv:1605.04711), one bit is XNOR-Net (Rastegari et al.,
arXiv:1603.05279). Scales are rounded to 16 significant bits, so that codes * scale is exact in 32-bit float and
quantizing the product gives the same codes and scales again, bit by bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BITS = (1, 2, 3, 4, 5, 6, 7, 8)
TERNARY_THRESHOLD = 0.7  # of the mean magnitude; the optimum for normally distributed weights
SCALE_BITS = 16  # 16 of a scale and up to 7 of a code fit into the 24 of a float

Codes = NDArray[np.int8]
Floats = NDArray[np.float32]


def quantize_weights(weight: Floats, bits: int) -> tuple[Codes, Floats]:
    """The codes of ``weight`` and the scale of each output channel; ``dequantize_weights`` is the way back.

    A channel of zeros has codes 0 and scale 1; with one bit, which has no zero, codes 1 and scale 0.

    Args:
        weight: (channels out, …) finite numbers.
        bits: 1 to 8.

    Returns:
        Codes of the shape of ``weight``, and scales of shape (channels out,).

    Raises:
        ValueError: ``bits`` is none of these, or a weight is not finite.
    """
    if bits not in BITS:
        raise ValueError(f"weights have 1 to 8 bits, not {bits}")
    rows = np.asarray(weight, dtype=np.float64).reshape(len(weight), -1)
    if not np.isfinite(rows).all():
        raise ValueError("weights to quantize must be finite")
    magnitude = np.abs(rows)
    if bits == 1:
        codes = np.where(rows < 0, -1, 1)
        scale = _rounded(magnitude.mean(axis=1))
    elif bits == 2:
        kept = magnitude > TERNARY_THRESHOLD * magnitude.mean(axis=1, keepdims=True)
        codes = np.sign(rows) * kept
        scale = _rounded((magnitude * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1))
    else:
        top = 2 ** (bits - 1) - 1
        scale = _rounded(magnitude.max(axis=1) / top)
        codes = np.rint(rows / np.where(scale > 0, scale, 1)[:, None]).clip(-top, top)
    if bits > 1:
        scale = np.where(scale > 0, scale, 1)
    return codes.astype(np.int8).reshape(weight.shape), scale.astype(np.float32)


def dequantize_weights(codes: Codes, scale: Floats) -> Floats:
    """The weights that ``codes`` (channels out, …) and ``scale`` (channels out,) stand for, exactly."""
    return codes.astype(np.float32) * scale.reshape(-1, *[1] * (codes.ndim - 1))


def _rounded(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    mantissa, exponent = np.frexp(scale)
    return np.ldexp(np.rint(np.ldexp(mantissa, SCALE_BITS)), exponent - SCALE_BITS)
