"""Weights of few bits: how many bits there are in the file, what they decode to, and that they cost no speed."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from search.stages.export import export_onnx
from search.stages.precision.weights import SCALE_BITS, quantize_weights
from search.stages.quantize import quantize
from spaces.parts.quantize import Quantize
from spaces.recipe import Export, Int8Static, LowBit, WeightOnly
from tests.onnx_look import CONVS, FIRST, LAST, array, conv_weights, error, operators, optimised, stored, with_weights
from tests.tiny import SIZE, noise, onnx_answers, snapshot

Leaf = Callable[[Quantize], Path]
ENDS = {FIRST, *LAST}
TYPES = {8: TensorProto.INT8, 4: TensorProto.INT4, 3: TensorProto.UINT8, 2: TensorProto.INT2, 1: TensorProto.UINT8}
OPSETS = {8: 17, 4: 21, 3: 17, 2: 25, 1: 17}


def no_images(count: int) -> list[np.ndarray]:
    raise AssertionError("this precision needs no calibration")


def packed(path: Path, bits: int) -> dict[str, tuple[onnx.TensorProto, np.ndarray]]:
    """By convolution: the tensor that holds its codes, and its scales, flat. Follows the graph back to them."""
    model, tensors = onnx.load(path), stored(path)
    makers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, tuple[onnx.TensorProto, np.ndarray]] = {}
    for conv in (node for node in model.graph.node if node.op_type == "Conv"):
        name, scale = conv.input[1], None
        while name in makers:
            node = makers[name]
            if node.op_type in {"Mul", "DequantizeLinear"}:
                scale = array(tensors[node.input[1]]).ravel()
            name = node.input[0]
        if scale is not None and tensors[name].data_type == TYPES[bits]:
            found[conv.name] = (tensors[name], scale)
    return found


def decoded(tensor: onnx.TensorProto, count: int, bits: int) -> np.ndarray:
    """``count`` codes from the bytes of a tensor, bit by bit."""
    data = tensor.raw_data
    if bits in (8, 4, 2):  # two's complement, the first code in the lowest bits
        fields = [data[index * bits // 8] >> (index * bits % 8) & (2**bits - 1) for index in range(count)]
        return np.array([field - 2**bits if field >= 2 ** (bits - 1) else field for field in fields])
    size = len(data) // bits  # planes, the highest first; the first code in the highest bit
    levels = [
        sum((data[plane * size + index // 8] >> (7 - index % 8) & 1) << (bits - 1 - plane) for plane in range(bits))
        for index in range(count)
    ]
    return 2 * np.array(levels) - (2**bits - 1)


@pytest.mark.parametrize("bits", TYPES)
def test_weight_only_stores_as_few_bits_as_it_says_and_computes_in_float(
    lively: Path, leaf: Leaf, bits: int, tmp_path: Path
) -> None:
    path = leaf(WeightOnly.model_validate({"bits": bits}))
    floats, held = conv_weights(lively), packed(path, bits)
    assert set(held) == set(floats) - ENDS
    expected: dict[str, np.ndarray] = {}
    for name, (tensor, scale) in held.items():
        weight = floats[name]
        planes = bits if bits in (3, 1) else 1
        assert len(tensor.raw_data) == planes * math.ceil(weight.size * bits / planes / 8)
        codes, scales = quantize_weights(weight, bits, clip=True)
        assert np.array_equal(decoded(tensor, weight.size, bits), codes.ravel())
        assert np.array_equal(scale, scales.ravel())
        expected[name] = codes * scales
    changed = with_weights(lively, expected, tmp_path / "expected.onnx")
    np.testing.assert_allclose(onnx_answers(path, noise(2)), onnx_answers(changed, noise(2)), rtol=1e-4, atol=1e-4)
    assert optimised(path) == optimised(lively)  # all of the unpacking is folded
    assert stored(path)[stored_name(path, FIRST)].data_type == TensorProto.FLOAT
    model = onnx.load(path)
    assert max(entry.version for entry in model.opset_import if not entry.domain) == OPSETS[bits]
    onnx.checker.check_model(model, full_check=True)


def stored_name(path: Path, conv: str) -> str:
    return next(node.input[1] for node in onnx.load(path).graph.node if node.name == conv)


def test_fewer_bits_make_smaller_files_and_larger_errors(leaf: Leaf, lively: Path) -> None:
    weights = sum(weight.size for name, weight in conv_weights(lively).items() if name not in ENDS)
    sizes = {bits: leaf(WeightOnly.model_validate({"bits": bits})).stat().st_size for bits in TYPES}
    for bits, size in sizes.items():
        saved = weights * (32 - bits) / 8
        assert lively.stat().st_size - size == pytest.approx(saved, rel=0.03)  # but for names and scales
    errors = [error(leaf(WeightOnly.model_validate({"bits": bits})), lively) for bits in (8, 4, 1)]
    assert errors[0] < 0.5 < errors[1]
    assert errors[0] < 0.5 * errors[1]


def test_the_ends_are_packed_too_when_asked(lively: Path, tmp_path: Path) -> None:
    part = WeightOnly(bits=4, skip_ends=False)
    path = quantize(lively, part, images=no_images, path=tmp_path / "model.onnx")
    assert len(packed(path, 4)) == CONVS
    assert optimised(path)["Conv"] == CONVS


def test_the_decode_step_is_no_layer_to_quantize(plain: Path, tmp_path: Path) -> None:
    """Without the fast rewrite the file has one more convolution, whose weights are the numbers 0 to 15."""
    path = quantize(plain, WeightOnly(bits=1, skip_ends=False), images=no_images, path=tmp_path / "model.onnx")
    assert operators(plain)["Conv"] == CONVS + 1
    assert len(packed(path, 1)) == CONVS
    low = quantize(plain, LowBit(bits=2, skip_ends=False, images=2), images=noise, path=tmp_path / "low.onnx")
    assert len(packed(low, 2)) == CONVS


@pytest.mark.parametrize("bits", [4, 3, 2, 1])
def test_low_bit_is_fused_int8_on_the_weights_that_the_codes_stand_for(
    lively: Path, leaf: Leaf, bits: int, tmp_path: Path
) -> None:
    path = leaf(LowBit.model_validate({"bits": bits, "images": 4}))
    floats, held = conv_weights(lively), packed(path, bits)
    assert set(held) == set(floats) - ENDS
    expected: dict[str, np.ndarray] = {}
    for name, (tensor, scale) in held.items():
        codes, scales = quantize_weights(floats[name], bits, clip=True)
        assert np.array_equal(decoded(tensor, codes.size, bits), codes.ravel())
        np.testing.assert_allclose(scale, scales.ravel(), rtol=1e-6)
        expected[name] = codes * scales
    left, int8 = optimised(path), optimised(leaf(Int8Static(images=4)))
    assert left["QLinearConv"] == CONVS and left["Conv"] == 0
    assert left == int8  # so it is as fast
    changed = with_weights(lively, expected, tmp_path / "expected.onnx")
    of_int8 = quantize(changed, Int8Static(images=4), images=noise, path=tmp_path / "int8.onnx")
    assert error(path, changed) < 1.3 * error(of_int8, changed)
    assert path.stat().st_size < leaf(Int8Static(images=4)).stat().st_size - sum(
        codes.size * (8 - bits) / 8 * 0.95 for codes in expected.values()
    )


def test_integer_biases_follow_the_new_scales(lively: Path, leaf: Leaf) -> None:
    path = leaf(LowBit(bits=2, images=4))
    tensors, floats = stored(path), stored(lively)
    names = {node.name: node.input[2] for node in onnx.load(lively).graph.node if node.op_type == "Conv"}
    model = onnx.load(path)
    makers = {node.output[0]: node for node in model.graph.node}
    for conv in (node for node in model.graph.node if node.op_type == "Conv"):
        readers = [makers[name].input for name in conv.input]
        activation, weight, step = (array(tensors[inputs[1]]) for inputs in readers)  # scales
        whole = array(tensors[readers[2][0]])
        assert whole.dtype == np.int32
        np.testing.assert_allclose(step, activation * weight, rtol=1e-6)
        assert (np.abs(whole * step - array(floats[names[conv.name]])) <= 0.51 * step + 1e-6).all()


def layer(conv: str) -> str:
    """The place of a convolution in its block of the model: "/model.2/m.0/cv1/conv/Conv" gives "m.0.cv1.conv"."""
    parts = conv.split("/")[2:-1]
    return ".".join(
        part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")
    )


@pytest.mark.parametrize("bits", [4, 3, 2, 1])
def test_weights_trained_on_the_grid_are_stored_without_loss(model: nn.Module, bits: int, tmp_path: Path) -> None:
    """The exporter folds each batch norm, some of negative weight here, into its convolution."""
    trained = deepcopy(model)
    truth: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    for name, module in trained.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data *= torch.from_numpy(rng.choice([-1, 1], len(module.weight))).float()
        if isinstance(module, nn.Conv2d) and not name.endswith("dfl.conv"):
            codes, scale = quantize_weights(module.weight.data.numpy(), bits)
            module.weight.data = torch.from_numpy(codes * scale)
            truth[name] = codes
    before = snapshot(trained)
    source = export_onnx(trained, Export(), image_size=SIZE, path=tmp_path / "float.onnx")
    assert snapshot(trained) == before
    part = WeightOnly.model_validate({"bits": bits, "skip_ends": False})
    path = quantize(source, part, images=no_images, path=tmp_path / "model.onnx")
    held = packed(path, bits)
    assert len(held) == CONVS == len(truth)
    floats = conv_weights(source)
    for name, (tensor, scale) in held.items():
        codes = decoded(tensor, floats[name].size, bits).reshape(floats[name].shape)
        own = truth[name.removeprefix("/").split("/")[0] + "." + layer(name)]
        assert np.array_equal(np.abs(codes), np.abs(own))  # a batch norm of negative weight turns the sign
        np.testing.assert_allclose(codes * scale[:, None, None, None], floats[name], rtol=2.0**-SCALE_BITS)
    np.testing.assert_allclose(onnx_answers(path, noise(2)), onnx_answers(source, noise(2)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bits", [4, 2, 1])
def test_convolutions_that_share_a_weight_are_stored_as_if_they_did_not(
    lively: Path, bits: int, tmp_path: Path
) -> None:
    """The exporter stores equal weights once, such as those with which attention begins."""
    one, other = "/model.22/cv2.0/cv2.0.1/conv/Conv", "/model.22/cv2.1/cv2.1.1/conv/Conv"
    equal = with_weights(lively, {other: conv_weights(lively)[one]}, tmp_path / "equal.onnx")
    model = onnx.load(equal)
    nodes = {node.name: node for node in model.graph.node}
    nodes[other].input[1] = nodes[one].input[1]
    onnx.save(model, tmp_path / "shared.onnx")
    part = LowBit.model_validate({"bits": bits, "images": 2})
    paths = [tmp_path / "of_shared.onnx", tmp_path / "of_equal.onnx"]
    quantize(tmp_path / "shared.onnx", part, images=noise, path=paths[0])
    quantize(equal, part, images=noise, path=paths[1])
    onnx.checker.check_model(str(paths[0]))
    assert np.array_equal(onnx_answers(paths[0], noise(2)), onnx_answers(paths[1], noise(2)))


def test_a_convolution_without_a_bias_is_stored_too(lively: Path, tmp_path: Path) -> None:
    """That of efficient attention has none."""
    inner = "/model.22/cv2.0/cv2.0.1/conv/Conv"
    model = onnx.load(lively)
    [node] = [node for node in model.graph.node if node.name == inner]
    del node.input[2:]
    onnx.save(model, tmp_path / "float.onnx")
    part = LowBit(bits=4, images=2)
    path = quantize(tmp_path / "float.onnx", part, images=noise, path=tmp_path / "packed.onnx")
    assert inner in packed(path, 4)
    with_bias = quantize(lively, part, images=noise, path=tmp_path / "with_bias.onnx")
    assert error(path, tmp_path / "float.onnx") < 1.5 * error(with_bias, lively)
