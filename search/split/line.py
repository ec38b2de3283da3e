"""Where an ONNX graph can be cut: the places in the order of its nodes, and the tensors that cross each.

Everything after a place depends on everything before it only through these tensors. Weights, and nodes that compute
from weights alone, belong to neither side: each stage has a copy of those that it needs. So has it of the
DequantizeLinear that reads a tensor from before, so that what crosses is the rounded tensor, a quarter of the bytes.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, shape_inference

from search.errors import UserError
from search.quantcheck.graph import Graph


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """What is handed on; ``shape`` has the batch first and no size left open, ``dtype`` is numpy's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place to cut: right after the node of this index in the file, where ``tensors`` cross."""

    after: int
    tensors: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that cross for one picture."""
        return sum(tensor.nbytes for tensor in self.tensors)


def load_model(path: Path) -> onnx.ModelProto:
    """A model with the shape of every tensor in it; a batch that is left open is one picture.

    Raises:
        UserError: there is no such file, it is no ONNX model, or one that cannot be cut.
    """
    if not path.is_file():
        raise UserError(f"there is no ONNX file at {path}; correct the path")
    try:
        model = onnx.load(path)
        _close_batch(model)
        del model.graph.value_info[:]  # may be of another batch
        model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # protobuf's and ONNX's have no common base class
        raise UserError(f"{path} is no ONNX model whose shapes can be told: {error}; export it again") from error
    kinds = {attribute.type for node in model.graph.node for attribute in node.attribute}
    if kinds & {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}:
        raise UserError(f"{path} has branches or loops (If, Loop, Scan), which cannot be cut; export it without")
    return model


def _close_batch(model: onnx.ModelProto) -> None:
    for entry in (*model.graph.input, *model.graph.output):
        sizes = entry.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            sizes[0].dim_value = 1


def tensors_of(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Every tensor of a known shape and type."""
    graph = model.graph
    found: dict[str, Tensor] = {}
    for entry in (*graph.input, *graph.value_info, *graph.output):
        kind = entry.type.tensor_type
        sizes = [size.dim_value for size in kind.shape.dim]
        if kind.elem_type and kind.HasField("shape") and all(sizes):
            dtype: Any = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            found[entry.name] = Tensor(name=entry.name, shape=tuple(sizes), dtype=np.dtype(dtype).name)
    return found


def find_places(model: onnx.ModelProto, whole: Container[str]) -> list[Place]:
    """The places where only tensors of ``whole`` cross, in the order of the file; no two with the same tensors."""
    known, nodes = tensors_of(model), list(model.graph.node)
    made, used = _lives(model)
    working = sorted({index for index in made.values() if index >= 0})
    places: list[Place] = []
    for index in working[:-1]:
        names = [name for name, start in made.items() if start <= index < used.get(name, -1)]
        fit = all(made[name] >= 0 and name in whole and name in known for name in names)
        if fit and any(name in names for name in nodes[index].output):
            places.append(Place(after=index, tensors=tuple(known[name] for name in names)))
    return places


def _lives(model: onnx.ModelProto) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Of each live tensor, but for those that a stage computes again, its node and the last node that needs it.

    Inputs are made at -1; outputs are needed after the last node.
    """
    graph = Graph(model)
    source = {name: name for name in graph.inputs}
    made = dict.fromkeys(graph.inputs, -1)
    used: dict[str, int] = {}
    for index, node in enumerate(model.graph.node):
        reads = [source[name] for name in node.input if name in graph.live]
        if not reads:
            continue
        if node.op_type == "DequantizeLinear" and len(reads) == 1:  # its scale is stored
            source[node.output[0]] = reads[0]
            continue
        source |= {name: name for name in node.output if name}
        made |= {name: index for name in node.output if name}
        used |= dict.fromkeys(reads, index)
    used |= {source[name]: len(model.graph.node) for name in graph.outputs if name in source}
    return made, used
