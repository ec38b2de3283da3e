"""Takes out of an ONNX file what its answers do not depend on: long names, equal tensors, notes for readers.

The last step of all: other steps find nodes by the names that the exporter gave them.
"""

from __future__ import annotations

import string
from collections.abc import Iterator

import onnx

DIGITS = string.digits + string.ascii_lowercase + string.ascii_uppercase
DROPPED_METADATA = {"author", "date", "description", "docs", "version"}  # the rest is read back, or a licence


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` that computes the same bits, with the same inputs and outputs.

    Equal initializers are stored once; tensors have names of one to three letters and nodes have none; shapes of
    inner tensors, documentation, unused operator sets and metadata that nobody reads back are gone.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert not any(attribute.HasField("g") for node in copy.graph.node for attribute in node.attribute)
    _share_initializers(copy.graph)
    _shorten_names(copy.graph)
    _drop_notes(copy)
    return copy


def _share_initializers(graph: onnx.GraphProto) -> None:
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    kept: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        nameless = onnx.TensorProto()
        nameless.CopyFrom(tensor)
        nameless.ClearField("name")
        same[tensor.name] = first.setdefault(nameless.SerializeToString(deterministic=True), tensor.name)
        if same[tensor.name] == tensor.name:
            kept.append(tensor)
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in kept if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _shorten_names(graph: onnx.GraphProto) -> None:
    fixed = {entry.name for entry in [*graph.input, *graph.output]}
    free = (name for name in _names() if name not in fixed)
    short = {name: name for name in {*fixed, ""}}
    for tensor in graph.initializer:
        if tensor.name not in short:
            short[tensor.name] = next(free)
        tensor.name = short[tensor.name]
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name not in short:
                    short[name] = next(free)
                names[index] = short[name]
        node.ClearField("name")


def _names() -> Iterator[str]:
    """Every short name, the shortest first."""
    longer = [""]
    while True:
        longer = [name + digit for name in longer for digit in DIGITS]
        yield from longer


def _drop_notes(model: onnx.ModelProto) -> None:
    graph = model.graph
    del graph.value_info[:]
    del graph.quantization_annotation[:]
    graph.name = "g"  # the checker refuses a graph without one
    for entry in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        entry.ClearField("doc_string")
    for node in graph.node:
        del node.metadata_props[:]
    domains = {node.domain or "" for node in [*graph.node, *(inner for f in model.functions for inner in f.node)]}
    kept = [entry for entry in model.opset_import if (entry.domain or "") in domains]
    properties = [entry for entry in model.metadata_props if entry.key not in DROPPED_METADATA]
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(kept)
    model.metadata_props.extend(properties)
