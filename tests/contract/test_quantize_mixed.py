"""Mixed precision: each layer's damage against quantizing it alone, and who is spared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from pydantic import TypeAdapter, ValidationError
from torch import nn

from search.stages.activation import swap_activation
from search.stages.export import export_onnx
from search.stages.precision.calibration import Reader
from search.stages.precision.graph import prepared
from search.stages.quantize import quantize
from spaces.parts.quantize import Quantize
from spaces.recipe import Export, Int8Static, Mixed
from tests.onnx_look import CONVS, FIRST, LAST, array, error, optimised, stored
from tests.tiny import SIZE, noise, one_thread, onnx_answers, sha256

Leaf = Callable[[Quantize], Path]
SPARED = int(0.3 * CONVS)


def damages(source: Path) -> tuple[Path, dict[str, float]]:
    (cache,) = source.parent.glob("*.damage-*.json")
    return cache, json.loads(cache.read_text())


def alone_error(lively: Path, conv: str, folder: Path) -> float:
    """The damage of one block by ONNX Runtime's quantizer, told to quantize nothing else."""
    model = prepared(lively)
    before, after = folder / "before.onnx", folder / "after.onnx"
    onnx.save(model, before)
    names = {conv, *(conv.replace("conv/Conv", f"act/{operator}") for operator in ("Sigmoid", "Mul"))}
    quantize_static(
        before, after, Reader("images", noise(4)), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        nodes_to_exclude=[node.name for node in model.graph.node if node.name not in names],
    )  # fmt: skip
    raw = [node.output[0] for node in model.graph.node if node.name in LAST]
    answers: list[list[list[np.ndarray]]] = []
    for file in (before, after):
        variant = onnx.load(file)
        del variant.graph.output[:]
        variant.graph.output.extend(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in raw)
        options = one_thread()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(variant.SerializeToString(), options)
        answers.append([[np.asarray(one) for one in session.run(raw, {"images": image})] for image in noise(4)])
    pairs = [pair for expected, found in zip(*answers, strict=True) for pair in zip(expected, found, strict=True)]
    return float(np.mean([((found - expected) ** 2).mean() / expected.var() for expected, found in pairs]))


def test_damage_is_that_of_the_layer_alone(leaf: Leaf, lively: Path, tmp_path: Path) -> None:
    leaf(Mixed(budget=0.3, images=4))
    _, found = damages(lively)
    assert len(found) == CONVS
    for conv in (FIRST, "/model.6/cv1/conv/Conv", "/model.22/cv3.1/cv3.1.1/conv/Conv"):
        assert found[conv] == pytest.approx(
            alone_error(lively, conv, tmp_path), rel=0.2
        )  # of numbers from 1e-4 to 6e-3


@pytest.mark.parametrize("fallback", ["float", "int16"])
def test_the_worst_layers_are_spared_and_the_rest_is_fused(leaf: Leaf, lively: Path, fallback: str) -> None:
    path = leaf(Mixed.model_validate({"budget": 0.3, "fallback": fallback, "images": 4}))
    _, damage = damages(lively)
    worst = set(sorted(damage, key=lambda name: damage[name], reverse=True)[:SPARED])
    model, tensors = onnx.load(path), stored(path)
    makers = {node.output[0]: node for node in model.graph.node}
    types: dict[str, set[int]] = {}
    for node in (node for node in model.graph.node if node.op_type == "Conv"):
        entry = makers.get(node.input[0])  # none for the picture
        quantized = entry is not None and entry.op_type == "DequantizeLinear" and node.input[1] in makers
        kind = tensors[entry.input[2]].data_type if entry is not None and quantized else TensorProto.FLOAT
        types.setdefault(kind, set()).add(node.name)  # pyright: ignore[reportArgumentType]
    expected = TensorProto.FLOAT if fallback == "float" else TensorProto.UINT16
    assert types == {expected: worst, TensorProto.UINT8: set(damage) - worst}
    assert optimised(path)["QLinearConv"] == CONVS - SPARED
    assert error(path, lively) < 0.9 * error(leaf(Int8Static(images=4)), lively)


def test_damage_is_measured_once_for_each_file(leaf: Leaf, lively: Path, tmp_path: Path) -> None:
    leaf(Mixed(budget=0.3, images=4))
    cache, damage = damages(lively)
    source = Path(shutil.copy(lively, tmp_path / "other.onnx"))
    said = dict.fromkeys(damage, 0.0) | {FIRST: 2.0, LAST[0]: 1.0}
    (tmp_path / cache.name.replace(lively.stem, "other", 1)).write_text(json.dumps(said))
    before = sha256(source)
    path = quantize(source, Mixed(budget=2.5 / CONVS, images=4), images=noise, path=tmp_path / "leaf" / "model.onnx")
    names = set(stored(path))
    floats = {n.name for n in onnx.load(path).graph.node if n.op_type == "Conv" and n.input[1] in names}
    assert floats == {FIRST, LAST[0]}  # as the cache says, rounded down
    assert sha256(source) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "mixed", "budget": 0}, r"mixed\.budget\n.*greater than 0"),
        ({"kind": "mixed", "budget": 1}, r"mixed\.budget\n.*less than 1"),
        ({"kind": "mixed", "budget": 0.5, "fallback": "int4"}, r"mixed\.fallback\n.*'float' or 'int16'"),
        ({"kind": "weight_only", "bits": 5}, r"weight_only\.bits\n.*8, 4, 3, 2 or 1"),
        ({"kind": "weight_only"}, r"weight_only\.bits\n.*Field required"),
        ({"kind": "low_bit", "bits": 8}, r"low_bit\.bits\n.*4, 3, 2 or 1"),
    ],
)
def test_refusals(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Quantize).validate_python(content)


def test_scales_of_spared_layers_are_gone(leaf: Leaf) -> None:
    path = leaf(Mixed(budget=0.3, images=4))
    weights = [tensor for tensor in stored(path).values() if len(tensor.dims) == 4]
    kinds = [array(tensor).dtype for tensor in weights]
    assert kinds.count(np.dtype(np.int8)) == CONVS - SPARED


def test_a_model_with_nodes_that_the_exporter_did_not_name(model: nn.Module, tmp_path: Path) -> None:
    """Hardswish is written out as operators without names, which were taken for one another."""
    swapped = swap_activation(model, "hardswish")
    source = export_onnx(swapped, Export(), image_size=SIZE, path=tmp_path / "float.onnx")
    assert any(node.op_type == "HardSwish" for node in onnx.load(source).graph.node)
    path = quantize(source, Mixed(budget=0.2, images=2), images=noise, path=tmp_path / "mixed.onnx")
    convs = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    makers = {output: node.op_type for node in onnx.load(path).graph.node for output in node.output}
    quantized = [node for node in convs if makers.get(node.input[1]) == "DequantizeLinear"]
    assert 0.75 * CONVS <= len(quantized) < CONVS
    assert np.isfinite(onnx_answers(path, noise(1))).all()
