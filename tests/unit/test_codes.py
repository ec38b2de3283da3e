"""Codes and scales of weights, against brute force, and bit by bit stable under repetition."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.stages.codes import BITS, SCALE_BITS, dequantize_weights, quantize_weights

Floats = NDArray[np.float32]
widths = pytest.mark.parametrize("bits", BITS)


def weights(seed: int, *, channels: int = 6, tail: tuple[int, ...] = (4, 3, 3)) -> Floats:
    """Channels of very different magnitudes, one of them with a single outlier."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(channels, *tail)) * 10.0 ** rng.integers(-6, 4, size=(channels, 1, 1, 1))
    made[0].flat[0] = 50 * np.abs(made[0]).max()
    return made.astype(np.float32)


def nearest(value: float, lattice: list[float]) -> float:
    return min(lattice, key=lambda point: abs(point - value))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_whole_multiples_are_the_nearest_ones_and_reach_the_ends(bits: int) -> None:
    weight = weights(1)
    codes, scale = quantize_weights(weight, bits)
    top = 2 ** (bits - 1) - 1
    assert codes.dtype == np.int8 and codes.shape == weight.shape
    assert scale.dtype == np.float32 and scale.shape == (len(weight),)
    assert set(np.abs(codes).reshape(len(codes), -1).max(1)) == {top}
    for row, code, s in zip(weight.reshape(6, -1), codes.reshape(6, -1), scale, strict=True):
        assert s == pytest.approx(np.abs(row).max() / top, rel=2.0**-SCALE_BITS)
        lattice = [c * float(s) for c in range(-top, top + 1)]
        for w, c in zip(row, code, strict=True):
            assert abs(c * float(s) - w) <= abs(nearest(float(w), lattice) - w) + 1e-6 * s


def test_two_bits_are_ternary_weight_networks() -> None:
    weight = weights(2)
    codes, scale = quantize_weights(weight, 2)
    for row, code, s in zip(weight.reshape(6, -1).astype(float), codes.reshape(6, -1), scale, strict=True):
        threshold = 0.7 * sum(abs(w) for w in row) / len(row)
        assert list(code) == [(0 if abs(w) <= threshold else 1 if w > 0 else -1) for w in row]
        kept = [abs(w) for w in row if abs(w) > threshold]
        assert s == pytest.approx(sum(kept) / len(kept), rel=2.0**-SCALE_BITS)
        # The mean of the kept weights is the scale with the least square error for these codes.
        errors = [np.square(row - factor * float(s) * code).sum() for factor in (0.99, 1, 1.01)]
        assert errors[1] == min(errors)


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    weight = weights(3)
    codes, scale = quantize_weights(weight, 1)
    assert np.array_equal(codes, np.where(weight < 0, -1, 1))
    np.testing.assert_allclose(scale, np.abs(weight).reshape(6, -1).mean(1), rtol=2.0**-SCALE_BITS)


@widths
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_quantizing_again_changes_nothing(bits: int, seed: int) -> None:
    codes, scale = quantize_weights(weights(seed), bits)
    again, same = quantize_weights(dequantize_weights(codes, scale), bits)
    assert np.array_equal(again, codes)
    assert same.tobytes() == scale.tobytes()


@widths
def test_the_products_are_exact(bits: int) -> None:
    codes, scale = quantize_weights(weights(4), bits)
    restored = dequantize_weights(codes, scale)
    for row, code, s in zip(restored.reshape(6, -1), codes.reshape(6, -1), scale, strict=True):
        assert [Fraction(float(w)) for w in row] == [int(c) * Fraction(float(s)) for c in code]
        assert len(np.unique(row)) <= 2**bits


@widths
def test_a_channel_of_zeros_stays_zero(bits: int) -> None:
    weight = weights(5)
    weight[2] = 0
    codes, scale = quantize_weights(weight, bits)
    assert not dequantize_weights(codes, scale)[2].any()
    again, same = quantize_weights(dequantize_weights(codes, scale), bits)
    assert np.array_equal(again, codes) and np.array_equal(same, scale)


@widths
def test_each_channel_is_quantized_by_itself_and_scales_with_its_weights(bits: int) -> None:
    weight = weights(6)
    codes, scale = quantize_weights(weight, bits)
    for index in range(len(weight)):
        alone, own = quantize_weights(weight[index : index + 1], bits)
        assert np.array_equal(alone[0], codes[index]) and own[0] == scale[index]
    grown, larger = quantize_weights(-4 * weight, bits)
    assert np.array_equal(grown, -codes) and np.array_equal(larger, 4 * scale)


def test_what_is_no_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 8 bits, not 9"):
        quantize_weights(weights(7), 9)
    with pytest.raises(ValueError, match="must be finite"):
        quantize_weights(np.array([[1.0, np.nan]], dtype=np.float32), 4)
