"""Swapping activations: every block, nothing else, and as ONNX operators that runtimes know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from ultralytics.nn.modules import Conv

from search.stages.activation import swap_activation
from search.stages.export import export_onnx
from spaces.recipe import ActivationName, Export
from tests.tiny import SIZE, answers, noise, onnx_answers, snapshot, weights

TYPES: dict[ActivationName, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
}
FORMULAS: dict[ActivationName, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "relu6": lambda x: torch.where(x > 0, x, 0.0).minimum(torch.tensor(6.0)),
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.1 * x),
    "mish": lambda x: x * torch.tanh(torch.log1p(torch.exp(x))),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
}
OPERATORS: dict[ActivationName, str] = {
    "silu": "Sigmoid",
    "relu": "Relu",
    "relu6": "Clip",
    "hardswish": "HardSwish",
    "leaky_relu": "LeakyRelu",
    "mish": "Softplus",
    "gelu": "Erf",
}
names = pytest.mark.parametrize("name", get_args(ActivationName))


def blocks(model: nn.Module) -> dict[str, Conv]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Conv)}


def active(model: nn.Module) -> int:
    return sum(not isinstance(block.act, nn.Identity) for block in blocks(model).values())


@names
def test_every_block_gets_the_activation_and_nothing_else_changes(model: nn.Module, name: ActivationName) -> None:
    bare = "model.9.cv1"  # newer versions of Ultralytics give SPPF's first block none
    model = deepcopy(model)
    blocks(model)[bare].act = nn.Identity()
    before = snapshot(model)
    swapped = swap_activation(model, name)
    assert snapshot(model) == before
    assert weights(swapped) == weights(model)
    assert blocks(swapped).keys() == blocks(model).keys()
    for key, block in blocks(swapped).items():
        assert type(block.act) is (nn.Identity if key == bare else TYPES[name])
    others = tuple(set(TYPES.values()) - {TYPES[name]})
    assert not [module for module in swapped.modules() if type(module) in others]


@names
def test_the_swapped_model_computes_the_formula(
    model: nn.Module, name: ActivationName, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(2)
    found = answers(swap_activation(model, name), images)
    assert np.array_equal(found, answers(swap_activation(model, name), images))
    monkeypatch.setattr(functional, "silu", lambda x, inplace=False: FORMULAS[name](x))  # the baseline's own
    expected = answers(model, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@names
def test_the_file_has_one_operator_for_each_block(model: nn.Module, name: ActivationName, tmp_path: Path) -> None:
    swapped = swap_activation(model, name)
    path = export_onnx(swapped, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    count = Counter(node.op_type for node in graph.node)
    expected = dict.fromkeys(OPERATORS.values(), 0) | {OPERATORS[name]: active(model)}
    expected["Sigmoid"] += 1  # of the scores
    assert {operator: count[operator] for operator in expected} == expected
    np.testing.assert_allclose(
        onnx_answers(path, noise(1)), answers(swapped, noise(1)), rtol=1e-4, atol=1e-3
    )  # fmt: skip


def test_the_bounds_and_slopes_reach_the_file(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(swap_activation(model, "relu6"), Export(fast_dfl=False), image_size=SIZE, path=path)
    graph = onnx.load(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    values |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    clips = {tuple(float(values[name]) for name in node.input[1:]) for node in graph.node if node.op_type == "Clip"}
    assert clips == {(0.0, 6.0)}
    export_onnx(swap_activation(model, "leaky_relu"), Export(fast_dfl=False), image_size=SIZE, path=path)
    leaky = [node for node in onnx.load(path).graph.node if node.op_type == "LeakyRelu"]
    assert {round(node.attribute[0].f, 6) for node in leaky} == {0.1}


def test_there_and_back_is_the_same_model(model: nn.Module) -> None:
    there = swap_activation(model, "relu")
    images = noise(1)
    assert not np.allclose(answers(there, images), answers(model, images), rtol=1e-2)
    assert np.array_equal(answers(swap_activation(there, "silu"), images), answers(model, images))
