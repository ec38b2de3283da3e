"""The exported file: a valid graph, the model's own answers, and what a deployer needs to know of it."""

from __future__ import annotations

import ast
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import DFL

from search.stages.export import FastDFL, export_onnx, rewritten
from spaces.recipe import Export
from tests.tiny import (
    ANCHORS,
    BINS,
    CLASSES,
    OUTPUT,
    SIZE,
    answers,
    files_below,
    metadata,
    noise,
    onnx_answers,
    parameters,
    snapshot,
)

PIXELS = 0.01  # what the boxes of two equivalent graphs may differ by
STRIDE = 32  # px of a cell of the coarsest grid


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.fixture(params=["plain", "fast"])
def exported(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_the_file_is_valid_onnx(exported: Path) -> None:
    onnx.checker.check_model(str(exported), full_check=True)
    content = onnx.load(exported)
    assert [(opset.domain, opset.version) for opset in content.opset_import] == [("", 17)]
    weights = sum(np.prod(tensor.dims) for tensor in content.graph.initializer if tensor.data_type == 1)
    assert exported.stat().st_size < 4 * weights + 100_000  # bytes: the weights once, and the graph


def test_one_picture_goes_in_and_one_table_comes_out(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("images", [1, 3, SIZE, SIZE], "tensor(float)")
    assert (given.name, given.shape, given.type) == ("output0", list(OUTPUT), "tensor(float)")


def test_without_rewrites_the_file_answers_as_the_model_does(model: nn.Module, plain: Path) -> None:
    images = noise(3)
    np.testing.assert_allclose(onnx_answers(plain, images), answers(model, images), rtol=1e-4, atol=1e-4)


def test_with_the_product_the_boxes_are_the_same_to_a_hundredth_of_a_pixel(
    model: nn.Module, plain: Path, fast: Path
) -> None:
    images = noise(3)
    for expected in (onnx_answers(plain, images), answers(model, images)):
        found = onnx_answers(fast, images)
        assert np.ptp(expected[:, :4]) > SIZE  # px: the boxes differ
        assert np.abs(found[:, :4] - expected[:, :4]).max() < PIXELS
        assert np.abs(found[:, 4:] - expected[:, 4:]).max() < 1e-4


def test_the_softmax_and_its_transposition_are_gone(plain: Path, fast: Path) -> None:
    before, after = operators(plain), operators(fast)
    assert (before["Softmax"], before["Transpose"], before["MatMul"]) == (1, 1, 0)
    assert (after["Softmax"], after["Transpose"], after["MatMul"]) == (0, 0, 1)
    assert after["Conv"] == before["Conv"] - 1


def expectation(logits: Tensor) -> np.ndarray:
    """The mean bin of each side's distribution, in 64 bits: (N, 4 * bins, A) to (N, 4, A)."""
    values = logits.double().numpy().reshape(len(logits), 4, BINS, -1)
    shares = np.exp(values - values.max(2, keepdims=True))
    return (np.arange(BINS)[:, None] * shares).sum(2) / shares.sum(2)


def spread(scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(2, 4 * BINS, 500, generator=generator)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 8.0])
def test_the_product_is_the_expectation_of_random_logits(scale: float) -> None:
    logits = spread(scale)
    assert logits.abs().max() < 40  # trained heads stay far below
    found = FastDFL(BINS)(logits)
    np.testing.assert_allclose(found, DFL(BINS)(logits).detach(), atol=PIXELS / STRIDE, rtol=0)
    np.testing.assert_allclose(found, expectation(logits), atol=PIXELS / STRIDE, rtol=0)


def test_the_product_is_the_expectation_of_extreme_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    high = torch.randint(0, 2, (2, 4 * BINS, 500), generator=generator) * 80.0 - 40.0  # each side -40 or 40
    single = torch.full((1, 4, BINS, BINS), -40.0)
    single[:, :, range(BINS), range(BINS)] = 40.0  # all of the mass in one bin, each in turn
    low, even = torch.full((1, 4 * BINS, 3), -40.0), torch.full((1, 4 * BINS, 3), 40.0)
    for logits in (high, single.flatten(1, 2), low, even):
        found = FastDFL(BINS)(logits)
        np.testing.assert_allclose(found, expectation(logits), atol=PIXELS / STRIDE, rtol=0)


@pytest.mark.parametrize("value", [1e3, 1e30, -1e30])
def test_logits_out_of_all_bounds_still_give_a_distance_on_the_grid(value: float) -> None:
    found = FastDFL(BINS)(value * torch.ones(1, 4 * BINS, 2) + spread(1.0)[:1, :, :2])
    assert ((found >= 0) & (found <= BINS - 1)).all()


def test_a_rewritten_copy_leaves_the_model_and_its_weights_alone(model: nn.Module) -> None:
    before = snapshot(model)
    copy = rewritten(model, Export(fast_dfl=True))
    assert [module for module in copy.modules() if isinstance(module, FastDFL)]
    assert not [module for module in copy.modules() if isinstance(module, DFL)]
    assert snapshot(model) == before
    assert snapshot(rewritten(model, Export(fast_dfl=False))) == before
    np.testing.assert_allclose(answers(copy, noise(2)), answers(model, noise(2)), atol=PIXELS, rtol=0)


def test_the_file_tells_what_it_is(exported: Path) -> None:
    known = metadata(exported)
    assert ast.literal_eval(known["names"]) == {label: str(label) for label in range(CLASSES)}
    assert ast.literal_eval(known["imgsz"]) == [SIZE, SIZE]
    assert (known["stride"], known["task"], known["batch"]) == ("32", "detect", "1")


def test_the_model_is_untouched_and_the_graph_the_same_each_time(
    model: nn.Module, exported: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = snapshot(model)
    part = Export(fast_dfl=operators(exported)["Softmax"] == 0)
    again = export_onnx(model, part, image_size=SIZE, path=tmp_path / "deep" / "er" / "again.onnx")
    assert snapshot(model) == before
    assert again == tmp_path / "deep" / "er" / "again.onnx"
    assert list(files_below(tmp_path)) == ["deep/er/again.onnx"]
    assert onnx.load(again).graph.SerializeToString() == onnx.load(exported).graph.SerializeToString()
    assert {**metadata(again), "date": ""} == {**metadata(exported), "date": ""}


def test_a_model_in_training_mode_exports_the_same(model: nn.Module, fast: Path, tmp_path: Path) -> None:
    training = deepcopy(model).train().requires_grad_(True)
    before = snapshot(training)
    path = export_onnx(training, Export(), image_size=SIZE, path=tmp_path / "model.onnx")
    assert snapshot(training) == before
    assert np.array_equal(onnx_answers(path, noise(1)), onnx_answers(fast, noise(1)))


def test_another_size_of_input_gives_more_anchors_and_the_same_weights(model: nn.Module, tmp_path: Path) -> None:
    path = export_onnx(model, Export(), image_size=96, path=tmp_path / "model.onnx")
    found = onnx_answers(path, noise(1, size=96))
    assert found.shape == (1, 4 + CLASSES, ANCHORS * 9 // 4)
    assert np.abs(found - answers(model, noise(1, size=96)))[:, :4].max() < PIXELS
    assert ast.literal_eval(metadata(path)["imgsz"]) == [96, 96]


class Broken(nn.Module):
    """A layer that works once, so that the export fails after it began."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.left:
            raise RuntimeError("broken layer")
        self.left -= 1
        return x * 2


@pytest.mark.parametrize("calls", [0, 1])
def test_an_export_that_fails_leaves_no_file(model: nn.Module, tmp_path: Path, calls: int) -> None:
    broken: Any = deepcopy(model)
    layer = Broken()
    layer.left = calls
    broken.model[0].act = layer
    with pytest.raises(RuntimeError, match="broken layer"):
        export_onnx(broken, Export(), image_size=SIZE, path=tmp_path / "model.onnx")
    assert not files_below(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "model.onnx").write_bytes(b"the one before")
    with pytest.raises(RuntimeError, match="broken layer"):
        export_onnx(broken, Export(), image_size=SIZE, path=tmp_path / "model.onnx")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the one before"]


def test_the_file_holds_every_weight_of_the_fused_model(model: nn.Module, plain: Path) -> None:
    fused: Any = deepcopy(model)
    fused.fuse(verbose=False)
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(plain).graph.initializer}
    assert sum(held[name].size for name, _ in fused.named_parameters()) == parameters(fused)
    for name, value in fused.named_parameters():
        np.testing.assert_allclose(held[name], value.detach().numpy(), rtol=1e-6, atol=1e-7)


def test_exporting_writes_nowhere_else(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    working, target = tmp_path / "working", tmp_path / "target"
    working.mkdir()
    monkeypatch.chdir(working)
    export_onnx(model, Export(), image_size=SIZE, path=target / "model.onnx")
    assert not list(working.iterdir())
    assert [path.name for path in target.iterdir()] == ["model.onnx"]
