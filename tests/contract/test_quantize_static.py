"""Calibrated and dynamic quantization: the types in the file, what ONNX Runtime fuses, and how close it stays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from torch import nn

from search.data import calibration_images
from search.pipeline import Inputs, write_leaf
from search.stages.quantize import quantize
from spaces.parts.quantize import Quantize
from spaces.recipe import (
    Fp16,
    Fp32,
    Int8Dynamic,
    Int8Static,
    Int16,
    LowBit,
    Mixed,
    Recipe,
    WeightOnly,
)
from tests.onnx_look import CONVS, LAST, array, conv_weights, error, operators, optimised, stored
from tests.tiny import SIZE, metadata, noise, sha256

Leaf = Callable[[Quantize], Path]
INT8 = Int8Static(images=4)
CALIBRATED: list[Quantize] = [INT8, Int16(images=4), LowBit(bits=3, images=4), Mixed(budget=0.3, images=4)]
OTHERS: list[Quantize] = [Fp32(), Fp16(), Int8Dynamic(), WeightOnly(bits=4)]


def no_images(count: int) -> list[np.ndarray]:
    raise AssertionError("this precision needs no calibration")


def activations(path: Path) -> list[onnx.TensorProto]:
    """The zero points of all that is quantized while the model runs."""
    tensors = stored(path)
    return [tensors[node.input[2]] for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"]


def weights(path: Path) -> list[onnx.TensorProto]:
    """The quantized weights of the convolutions."""
    model, tensors = onnx.load(path), stored(path)
    makers = {node.output[0]: node for node in model.graph.node}
    return [tensors[makers[n.input[1]].input[0]] for n in model.graph.node if n.op_type == "Conv"]


@pytest.mark.parametrize("part", [INT8, Int8Static(images=4, symmetric=True), Int8Static(images=4, per_channel=False)])
def test_int8_is_unsigned_with_signed_and_every_convolution_is_fused(
    leaf: Leaf, lively: Path, part: Int8Static
) -> None:
    path = leaf(part)
    assert {tensor.data_type for tensor in activations(path)} == {TensorProto.UINT8}
    assert [tensor.data_type for tensor in weights(path)] == [TensorProto.INT8] * CONVS
    left = optimised(path)
    assert left["QLinearConv"] == CONVS and left["Conv"] == 0
    assert left["QLinearSigmoid"] == CONVS - len(LAST)
    assert error(path, lively) < 1.2
    assert path.stat().st_size < 0.35 * lively.stat().st_size


def test_a_symmetric_range_is_centred_on_zero(leaf: Leaf) -> None:
    plain = {int(array(point)) for point in activations(leaf(INT8))}
    assert {int(array(point)) for point in activations(leaf(Int8Static(images=4, symmetric=True)))} == {128}
    assert 0 in plain  # scores and pictures are never negative
    assert len(plain) > 5


def test_weights_have_a_scale_for_each_channel_or_one_a_tensor(leaf: Leaf, lively: Path) -> None:
    floats = conv_weights(lively)
    for per_channel in (True, False):
        path = leaf(Int8Static(images=4, per_channel=per_channel))
        model, tensors = onnx.load(path), stored(path)
        makers = {node.output[0]: node for node in model.graph.node}
        for node in (node for node in model.graph.node if node.op_type == "Conv"):
            largest = np.abs(floats[node.name]).max(axis=(1, 2, 3) if per_channel else None)
            found = array(tensors[makers[node.input[1]].input[1]])
            np.testing.assert_allclose(found, largest / 127, rtol=0.01)


def test_the_head_stays_in_float_as_far_as_asked(leaf: Leaf) -> None:
    for head, count in (("float_output", len(LAST)), ("float", 3 * len(LAST))):
        path = leaf(Int8Static.model_validate({"head": head, "images": 4}))
        model = onnx.load(path)
        names = {tensor.name for tensor in model.graph.initializer}
        floats = [node.name for node in model.graph.node if node.op_type == "Conv" and node.input[1] in names]
        assert len(floats) == count
        assert set(LAST) <= set(floats)
        assert optimised(path)["QLinearConv"] == CONVS - count


def test_calibrators_choose_ranges(leaf: Leaf) -> None:
    def scales(calibrator: str) -> np.ndarray:
        path = leaf(Int8Static.model_validate({"calibrator": calibrator, "images": 4}))
        tensors = stored(path)
        nodes = [node for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"]
        by_name = {node.input[0]: float(array(tensors[node.input[1]])) for node in nodes}
        seen = np.stack(noise(4))
        if calibrator == "minmax":
            assert by_name["images"] == pytest.approx(seen.max() / 255, rel=1e-4)
        return np.array([by_name[name] for name in sorted(by_name)])

    full, percentile, entropy = scales("minmax"), scales("percentile"), scales("entropy")
    assert (percentile <= 1.0001 * full).all() and (percentile < 0.9999 * full).mean() > 0.5
    assert (percentile > 0.8 * full).all()  # a hundredth of a percent of the values
    assert (entropy <= 1.0001 * full).all() and (entropy < 0.9 * full).mean() > 0.05


def test_dynamic_adds_integers_and_needs_no_images(lively: Path, tmp_path: Path) -> None:
    path = quantize(lively, Int8Dynamic(), images=no_images, path=tmp_path / "model.onnx")
    count = operators(path)
    assert count["ConvInteger"] == CONVS and count["Conv"] == 0
    assert count["DynamicQuantizeLinear"] > 50 and count["QuantizeLinear"] == 0
    tensors = stored(path)
    held = {tensors[n.input[1]].data_type for n in onnx.load(path).graph.node if n.op_type == "ConvInteger"}
    assert held == {TensorProto.UINT8}
    assert optimised(path)["ConvInteger"] == CONVS
    assert error(path, lively) < 1


def test_int16_activations_with_int8_weights(leaf: Leaf, lively: Path) -> None:
    path = leaf(Int16(images=4))
    assert {tensor.data_type for tensor in activations(path)} == {TensorProto.UINT16}
    assert [tensor.data_type for tensor in weights(path)] == [TensorProto.INT8] * CONVS
    assert all(entry.version >= 21 for entry in onnx.load(path).opset_import if not entry.domain)
    assert {node.domain for node in onnx.load(path).graph.node} == {""}  # ONNX's own operators only
    assert error(path, lively) < 0.3 * error(leaf(INT8), lively)


def test_fp16_keeps_the_decode_step_in_float(leaf: Leaf, lively: Path) -> None:
    path = leaf(Fp16())
    tensors = stored(path)
    held = [tensors[node.input[1]].data_type for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    assert held == [TensorProto.FLOAT16] * CONVS
    assert error(path, lively) < 0.1
    assert path.stat().st_size < 0.55 * lively.stat().st_size


@pytest.mark.parametrize("part", [*CALIBRATED, *OTHERS], ids=lambda part: part.kind)
def test_metadata_is_kept_and_names_the_calibration_images(leaf: Leaf, lively: Path, part: Quantize) -> None:
    found, before = metadata(leaf(part)), sha256(lively)
    names = found.pop("calibration_sha256", "")
    assert found == metadata(lively)
    expected = [hashlib.sha256(image.tobytes()).hexdigest()[:12] for image in noise(4)]
    assert names == (",".join(expected) if part in CALIBRATED else "")
    assert sha256(lively) == before


@pytest.mark.parametrize(
    "part", [INT8, Int8Dynamic(), Fp16(), LowBit(bits=1, images=4), WeightOnly(bits=3)], ids=lambda part: part.kind
)
def test_the_same_again_is_the_same_bytes(leaf: Leaf, lively: Path, part: Quantize, tmp_path: Path) -> None:
    before = sha256(lively)
    first = quantize(lively, part, images=noise, path=tmp_path / "first.onnx")
    second = quantize(lively, part, images=noise, path=tmp_path / "folder" / "second.onnx")
    assert sha256(first) == sha256(second)
    assert sha256(lively) == before


def test_calibration_images_are_from_the_training_split(
    model: nn.Module, baseline: Path, data: Path, tmp_path: Path
) -> None:
    def used(seed: int) -> list[str]:
        recipe = Recipe(image_size=SIZE, quantize=INT8)
        inputs = Inputs(baseline=baseline, data=data, seed=seed)
        path = write_leaf(model, recipe, inputs, folder=tmp_path / str(seed) / "leaf")
        return metadata(path)["calibration_sha256"].split(",")

    everything = calibration_images(data, image_size=SIZE, count=1000, seed=5)
    train = {hashlib.sha256(image.tobytes()).hexdigest()[:12] for image in everything}
    assert len(train) == 12  # all of the split
    assert len(set(used(0))) == 4 and set(used(0)) <= train
    assert used(0) == used(0) != used(1)
