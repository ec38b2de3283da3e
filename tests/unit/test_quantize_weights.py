"""Weights as codes and scales, against brute force and the papers' formulas."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.stages.precision.weights import SCALE_BITS, quantize_weights

GRIDS = {
    8: range(-127, 128),
    4: range(-7, 8),
    3: range(-7, 8, 2),
    2: range(-1, 2),
    1: range(-1, 2, 2),
}
ROUNDING = 2.0**-SCALE_BITS
every_bits = pytest.mark.parametrize("bits", GRIDS)


def some_weights(*, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((6, 5, 3, 3)) * rng.uniform(0.1, 3, (6, 1, 1, 1))).astype(np.float32)


@every_bits
def test_codes_are_of_the_grid_and_fit_the_bits(bits: int) -> None:
    weight = some_weights()
    before = weight.copy()
    codes, scale = quantize_weights(weight, bits)
    assert codes.dtype == np.int8 and codes.shape == weight.shape
    assert scale.dtype == np.float32 and scale.shape == (6, 1, 1, 1)
    assert set(np.unique(codes)) <= set(GRIDS[bits]) and len(GRIDS[bits]) <= 2**bits
    assert np.array_equal(weight, before)


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_each_weight_gets_the_nearest_level_and_the_largest_the_last(bits: int) -> None:
    weight = some_weights()
    codes, scale = quantize_weights(weight, bits)
    for channel, level, size in zip(weight, codes, scale.ravel(), strict=True):
        assert size == pytest.approx(np.abs(channel).max() / max(GRIDS[bits]), rel=ROUNDING)
        for value, code in zip(channel.ravel(), level.ravel(), strict=True):
            distances = [abs(value - grid * size) for grid in GRIDS[bits]]
            assert abs(value - code * size) <= min(distances) + 1e-4 * size


def test_two_bits_are_ternary_weight_networks() -> None:
    weight = some_weights()
    codes, scale = quantize_weights(weight, 2)
    for channel, level, size in zip(weight, codes, scale.ravel(), strict=True):
        threshold = 0.7 * np.mean([abs(value) for value in channel.ravel()])
        kept = [value for value in channel.ravel() if abs(value) > threshold]
        assert size == pytest.approx(np.mean(np.abs(kept)), rel=ROUNDING)
        assert np.array_equal(level, np.where(np.abs(channel) > threshold, np.sign(channel), 0))


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    weight = some_weights()
    codes, scale = quantize_weights(weight, 1)
    assert np.array_equal(codes, np.where(weight < 0, -1, 1))
    np.testing.assert_allclose(scale.ravel(), np.abs(weight).mean((1, 2, 3)), rtol=ROUNDING)


@every_bits
@pytest.mark.parametrize("clip", [True, False])
def test_weights_on_the_grid_get_their_codes_again_also_when_channels_are_multiplied(bits: int, clip: bool) -> None:
    codes, scale = quantize_weights(some_weights(), bits)
    factor = np.array([1, 0.37, -1.7, 3, -0.011, 1e-3], np.float32).reshape(6, 1, 1, 1)
    again, scale_again = quantize_weights(codes * scale * factor, bits, clip=clip)
    assert np.array_equal(again, codes * np.sign(factor))
    np.testing.assert_allclose(scale_again, scale * np.abs(factor), rtol=ROUNDING)


@every_bits
@pytest.mark.parametrize("clip", [True, False])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_quantizing_again_changes_nothing_to_the_last_bit(bits: int, clip: bool, seed: int) -> None:
    weight = some_weights(seed=seed) * 10.0 ** np.arange(-6, 0).reshape(6, 1, 1, 1)
    codes, scale = quantize_weights(weight, bits)
    again, same = quantize_weights(codes * scale, bits, clip=clip)
    assert np.array_equal(again, codes)
    assert same.tobytes() == scale.tobytes()


@every_bits
def test_the_products_are_exact(bits: int) -> None:
    codes, scale = quantize_weights(some_weights(), bits, clip=True)
    for row, code, size in zip((codes * scale).reshape(6, -1), codes.reshape(6, -1), scale.ravel(), strict=True):
        assert [Fraction(float(value)) for value in row] == [int(c) * Fraction(float(size)) for c in code]


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_clipping_lowers_the_error_when_there_are_outliers(bits: int) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 64, 3, 3)).astype(np.float32)
    weight[:, 0, 0, 0] *= 3
    errors = []
    for clip in (True, False):
        codes, scale = quantize_weights(weight, bits, clip=clip)
        errors.append(((codes * scale - weight) ** 2).sum((1, 2, 3)))
    assert (errors[0] <= errors[1] + 1e-9).all()
    assert bits == 8 or errors[0].sum() < 0.9 * errors[1].sum()


@every_bits
def test_a_channel_of_zeros_stays_one(bits: int) -> None:
    weight = some_weights()
    weight[2] = 0
    codes, scale = quantize_weights(weight, bits, clip=True)
    assert not (codes * scale)[2].any() and np.isfinite(scale).all()


@pytest.mark.parametrize("bits", [0, 5, 16])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=rf"in 8, 4, 3, 2 or 1 bits, not in {bits}"):
        quantize_weights(some_weights(), bits)


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        quantize_weights(np.array([[1.0, np.nan]], np.float32), 4)


def test_it_needs_neither_torch_nor_onnx() -> None:
    code = "import sys, search.stages.precision.weights; print({'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
