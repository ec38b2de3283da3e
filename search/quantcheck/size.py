"""A quantized file that is larger than it has to be, and where the bytes are."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import TensorProto

from search.quantcheck.finding import Finding, count, listed
from search.quantcheck.graph import PAIR, Graph
from search.stages.compact import compact

SHARE = 0.1  # of the file, from which on bytes are worth a sentence
SMALLER = 0.5  # of the float file: 8-bit weights alone make 0.25
FLOATS: dict[int, int] = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8}  # bytes each
CODES = {TensorProto.INT8, TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2}


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a file computes with, or stores, integers of 8 bits or less for real numbers."""
    operators = {node.op_type for node in model.graph.node}
    integer = any(name in PAIR or "Integer" in name or "QLinear" in name for name in operators)
    return integer or any(tensor.data_type in CODES for tensor in model.graph.initializer)


def size_findings(path: Path) -> list[Finding]:
    """Where bytes of the quantized ONNX file at ``path`` are lost."""
    graph, size = Graph(onnx.load(path)), path.stat().st_size
    found = (_float_weights(graph, size), _large_scales(graph, size), _not_compact(path, size))
    return [finding for finding in found if finding is not None]


def shrink_findings(size: int, before: int) -> list[Finding]:
    """A finding if a quantized file of ``size`` bytes is hardly smaller than its float file, of ``before`` bytes."""
    if size < SMALLER * before:
        return []
    grew = f"grew to {size / before:.2f} times" if size > before else f"is still {size / before:.0%} of"
    return [
        Finding(
            code="hardly_smaller",
            text=f"The file {grew} the size of its float file ({size / 1e6:.2f} MB, {before / 1e6:.2f} MB).",
            advice="See the other findings for where the bytes are; 8-bit weights alone make a quarter of the size.",
            numbers={"size_bytes": size, "float_bytes": before, "size_ratio": size / before},
        )
    ]


def _float_weights(graph: Graph, size: int) -> Finding | None:
    """Weights, with more than one value for each output channel, that layers read from floats in the file."""
    seen: set[str] = set()
    layers: list[str] = []
    for node in graph.heavy():
        floats = {name for name in graph.stored_behind(node) if _is_matrix(graph.stored[name])}
        if floats:
            layers.append(node.name)
            seen |= floats
    total = sum(FLOATS[graph.stored[name].data_type] * math.prod(graph.stored[name].dims) for name in seen)
    if total < SHARE * size:
        return None
    return Finding(
        code="float_weights",
        text=f"Weights stored as floats ({count(len(layers), 'layer')}) take {total / 1e6:.2f} MB, "
        f"{total / size:.0%} of the file: {listed(layers)}.",
        advice="Quantize them too (`head: int8` in a recipe; exclude the decode step only). If a trained quantizer "
        "left its weights in float, export without it and quantize the file.",
        layers=tuple(layers),
        numbers={"bytes": total, "share": total / size},
    )


def _is_matrix(tensor: onnx.TensorProto) -> bool:
    values = math.prod(tensor.dims)
    return tensor.data_type in FLOATS and len(tensor.dims) > 1 and values > max(tensor.dims[0], tensor.dims[-1])


def _large_scales(graph: Graph, size: int) -> Finding | None:
    """Scales and zero points of weights and biases that take a good part of the file."""
    names = {
        name
        for node in graph.model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] not in graph.live
        for name in node.input[1:]
    }
    parts = [graph.stored[name] for name in names if name in graph.stored]
    total = sum(part.ByteSize() for part in parts if math.prod(part.dims) > 1)
    if total < SHARE * size:
        return None
    return Finding(
        code="large_scales",
        text=f"Scales and zero points of output channels take {total / 1e6:.3f} MB, {total / size:.0%} of the file.",
        advice="With layers that small one scale each may do: `per_channel: false` in a recipe; measure accuracy.",
        numbers={"bytes": total, "share": total / size},
    )


def _not_compact(path: Path, size: int) -> Finding | None:
    """Equal tensors stored twice, long names and notes: what ``compact`` takes out without changing an answer."""
    saved = size - len(compact(onnx.load(path)).SerializeToString())
    if saved < SHARE * size:
        return None
    first: set[bytes] = set()
    twice = 0
    for tensor in onnx.load(path).graph.initializer:
        tensor.ClearField("name")
        content = tensor.SerializeToString(deterministic=True)
        twice += len(content) if content in first else 0
        first.add(content)
    return Finding(
        code="not_compact",
        text=f"{saved / 1e6:.3f} MB, {saved / size:.0%} of the file, are names, notes and equal tensors stored again "
        f"({twice / 1e6:.3f} MB).",
        advice="Have them taken out: `export: {compact: true}` in a recipe; answers stay the same.",
        numbers={"bytes": saved, "share": saved / size, "duplicates": twice},
    )
