"""Zeros: exactly those that the recipe asks for, still there after training, and in the exported file."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from search.stages.export import export_onnx
from search.stages.finetune import finetune
from search.stages.sparsify import hold_zeros, sparsify
from spaces.recipe import (
    Export,
    FeatureDistill,
    Finetune,
    MagnitudeSparsify,
    NMSparsify,
    NoDistill,
    ThresholdSparsify,
)
from tests.tiny import SIZE, answers, noise, onnx_answers, snapshot, weights

Part = ThresholdSparsify | MagnitudeSparsify | NMSparsify
PARTS: list[Part] = [
    ThresholdSparsify(threshold=0.05),
    MagnitudeSparsify(ratio=0.3),
    MagnitudeSparsify(ratio=0.3, scope="global"),
    NMSparsify(),
    NMSparsify(n=1, m=8),
]
every = pytest.mark.parametrize("part", PARTS, ids=[f"{part.kind}-{index}" for index, part in enumerate(PARTS)])


def convolutions(model: nn.Module) -> dict[str, np.ndarray]:
    """The weights that can be zeroed: of every convolution but the box decoder's."""
    return {
        name: module.weight.detach().numpy()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and "dfl" not in name
    }


def expected(old: dict[str, np.ndarray], part: Part) -> dict[str, np.ndarray]:
    """Where the weights stay, one weight at a time."""
    match part:
        case ThresholdSparsify():
            return {name: np.abs(value) >= part.threshold for name, value in old.items()}
        case MagnitudeSparsify(scope="layer"):
            return {name: np.abs(value) > lowest(np.abs(value), part.ratio) for name, value in old.items()}
        case MagnitudeSparsify():
            bound = lowest(np.concatenate([np.abs(value).ravel() for value in old.values()]), part.ratio)
            return {name: np.abs(value) > bound for name, value in old.items()}
        case NMSparsify():
            return {name: n_of_m(value, part) for name, value in old.items()}


def lowest(values: np.ndarray, ratio: float) -> float:
    """The largest of the share ``ratio`` of the smallest values."""
    return float(np.sort(values.ravel())[round(ratio * values.size) - 1])


def n_of_m(value: np.ndarray, part: NMSparsify) -> np.ndarray:
    kept = np.ones(value.shape, bool)
    _, inputs, height, width = value.shape
    if inputs % part.m:
        return kept
    for start in range(0, inputs, part.m):
        for y, x in np.ndindex(height, width):
            runs = np.abs(value[:, start : start + part.m, y, x])
            kept[:, start : start + part.m, y, x] = runs >= np.sort(runs, axis=1)[:, -part.n, None]
    return kept


@every
def test_the_zeros_are_where_the_formula_says_and_the_rest_is_as_it_was(model: nn.Module, part: Part) -> None:
    before = snapshot(model)
    found = sparsify(model, part)
    assert snapshot(model) == before
    old, new = convolutions(model), convolutions(found)
    for name, mask in expected(old, part).items():
        assert np.array_equal(new[name], np.where(mask, old[name], 0)), name
    made, again = weights(found), weights(sparsify(model, part))
    assert made == again
    rest = {name: digest for name, digest in weights(model).items() if name.removesuffix(".weight") not in old}
    assert rest and all(made[name] == digest for name, digest in rest.items())


def test_the_counts_are_exact(model: nn.Module) -> None:
    layers = convolutions(sparsify(model, MagnitudeSparsify(ratio=0.3)))
    assert all((value == 0).sum() == round(0.3 * value.size) for value in layers.values())
    every_layer = convolutions(sparsify(model, MagnitudeSparsify(ratio=0.3, scope="global")))
    size = sum(value.size for value in every_layer.values())
    assert sum((value == 0).sum() for value in every_layer.values()) == round(0.3 * size)
    assert len({round(float((value == 0).mean()), 2) for value in every_layer.values()}) > 5
    half = convolutions(sparsify(model, NMSparsify()))
    assert all((value == 0).mean() == 0.5 for value in half.values() if value.shape[1] % 4 == 0)
    assert (half["model.0.conv"] != 0).all()  # three input channels are no run of four


@pytest.mark.parametrize("part", [PARTS[2], PARTS[3]], ids=["global", "n_m"])
def test_the_zeros_survive_training_and_are_in_the_file(
    model: nn.Module, baseline: Path, data: Path, part: Part, tmp_path: Path
) -> None:
    sparse = sparsify(model, part)
    before = snapshot(sparse)
    distill = FeatureDistill() if isinstance(part, NMSparsify) else NoDistill()
    trained = finetune(
        sparse,
        Finetune(epochs=1, batch=4),
        distill,
        data=data,
        image_size=SIZE,
        teacher=baseline,
        seed=0,
        threads=1,
        after_step=hold_zeros(sparse),
    )
    assert snapshot(sparse) == before
    old, new = convolutions(sparse), convolutions(trained)
    assert all(np.array_equal(value == 0, old[name] == 0) for name, value in new.items())
    assert any(not np.array_equal(value, old[name]) for name, value in new.items())
    path = export_onnx(trained, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "model.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    for name, value in old.items():
        assert np.array_equal(stored[f"{name}.weight"] == 0, value == 0), name
        if isinstance(part, NMSparsify) and value.shape[1] % part.m == 0:
            runs = (stored[f"{name}.weight"] != 0).reshape(len(value), -1, part.m, *value.shape[2:])
            assert (runs.sum(2) == part.n).all(), name
    np.testing.assert_allclose(onnx_answers(path, noise(1)), answers(trained, noise(1)), rtol=1e-3, atol=1e-2)


def test_without_the_hold_training_fills_the_zeros(model: nn.Module, baseline: Path, data: Path) -> None:
    settings: Any = {"data": data, "image_size": SIZE, "teacher": baseline, "seed": 0, "threads": 1}
    trained = finetune(sparsify(model, PARTS[1]), Finetune(epochs=1, batch=4), NoDistill(), **settings)
    assert all((value == 0).mean() < 0.1 for value in convolutions(trained).values())


def test_the_hold_is_of_the_zeros_that_were_there_when_it_was_made(model: nn.Module) -> None:
    sparse = sparsify(model, NMSparsify())
    hold, grown = hold_zeros(sparse), deepcopy(sparse)
    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.add_(1.0)
    hold(grown, 0.1)
    old, new = convolutions(sparse), convolutions(grown)
    assert all(np.array_equal(new[name], np.where(old[name] == 0, 0, old[name] + 1)) for name in old)
