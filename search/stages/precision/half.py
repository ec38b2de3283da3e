"""Weights and arithmetic in 16-bit float, but for the decode step."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from search.stages.precision.calibration import ImageSource
from search.stages.precision.graph import set_metadata
from search.stages.precision.layers import decode_nodes
from spaces.parts.quantize import Fp16


def to_fp16(source: Path, part: Fp16, images: ImageSource, path: Path) -> None:
    """Writes the float file at ``source`` to ``path`` with 16-bit weights; input and output stay 32-bit floats."""
    model = onnx.load(source)
    # The decode step multiplies and exponentiates beyond the range of 16 bits.
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=decode_nodes(model))
    _drop_round_trips(half.graph)
    ONNXModel(half).topological_sort()  # the converter appends its casts at the end
    set_metadata(half, source)
    onnx.save(half, path)


def _drop_round_trips(graph: onnx.GraphProto) -> None:
    """Lets neighbouring float nodes pass 32 bits on: the converter puts a cast to 16 bits and back between them."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    shortcut = {
        name: casts[node.input[0]].input[0]
        for name, node in casts.items()
        if node.attribute[0].i == onnx.TensorProto.FLOAT and node.input[0] in casts
    }
    outputs = {shortcut[output.name]: output.name for output in graph.output if output.name in shortcut}
    for name in shortcut:
        graph.node.remove(casts.pop(name))
    for node in graph.node:
        inputs = [shortcut.get(name, name) for name in node.input]
        node.input[:] = [outputs.get(name, name) for name in inputs]
        node.output[:] = [outputs.get(name, name) for name in node.output]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in casts.values() if node.output[0] not in used]:
        graph.node.remove(node)
