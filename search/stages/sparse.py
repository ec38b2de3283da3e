"""Stores weights with many zeros as a bit mask and the values that are not zero.

A weight of n values of b bits, a share d of them not zero, takes n * (1 + b * d) bits, so 32-bit weights shrink from
d = 31/32 down and 8-bit weights from 7/8 down. A function in the file puts the zeros back; ONNX Runtime folds it when
it loads the file. ONNX's own sparse initializers spend 64 bits an index, which pays below d = 1/64 only.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from search.stages.precision.graph import initializers, main_opset, prepend_nodes, replace_tensors
from search.stages.precision.storage import DOMAIN, add_function

TYPES = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
OVERHEAD = 128  # bytes of names and shape that a stored weight costs

# The first of the values is the zero, so the place of a value is the number of mask bits up to it.
UNPACK = """
<domain: "{domain}", opset_import: ["": {opset}]>
unpack_sparse (mask, values, shape) => (weight) {{
  left = Constant <value = uint8[8] {{0, 1, 2, 3, 4, 5, 6, 7}}> ()
  right = Constant <value = uint8 {{7}}> ()
  first = Constant <value = int64[1] {{0}}> ()
  start = Constant <value = int64 {{0}}> ()
  last = Constant <value = int64[1] {{-1}}> ()
  bytes = Unsqueeze (mask, last)
  raised = BitShift <direction = "LEFT"> (bytes, left)
  bits = BitShift <direction = "RIGHT"> (raised, right)
  whole = Cast <to = 7> (bits)
  flat = Reshape (whole, last)
  count = ReduceProd <keepdims = 1> (shape)
  used = Slice (flat, first, count)
  so_far = CumSum (used, start)
  place = Mul (so_far, used)
  filled = Gather (values, place)
  weight = Reshape (filled, shape)
}}
"""


def store_sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` that computes the same from sparsely stored convolution weights, where that is smaller.

    Weights are float, 16-bit float, or 8-bit integers behind a DequantizeLinear with a zero point of 0. Those that are
    packed otherwise stay as they are.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = initializers(copy)
    tensors: dict[str, list[onnx.TensorProto]] = {}
    nodes: list[onnx.NodeProto] = []
    for name in _weight_names(copy):
        values = numpy_helper.to_array(stored[name])
        held = _sparse(values, name)
        if sum(len(tensor.raw_data) for tensor in held) + OVERHEAD < values.nbytes:
            tensors[name] = held
            nodes.append(helper.make_node("unpack_sparse", [tensor.name for tensor in held], [name], domain=DOMAIN))
    if tensors:
        replace_tensors(copy, tensors)
        prepend_nodes(copy, nodes)
        add_function(copy, UNPACK.format(domain=DOMAIN, opset=main_opset(copy)))
    return copy


def _weight_names(model: onnx.ModelProto) -> list[str]:
    """The stored tensors that are weights of convolutions, directly or through a DequantizeLinear."""
    dequantized = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    read = (node.input[1] for node in model.graph.node if node.op_type in {"Conv", "ConvInteger"})
    names = dict.fromkeys(dequantized.get(name, name) for name in read)
    stored = initializers(model)
    return [name for name in names if name in stored and stored[name].data_type in TYPES]


def _sparse(values: np.ndarray, name: str) -> list[onnx.TensorProto]:
    flat = values.ravel()
    kept = np.concatenate([np.zeros(1, flat.dtype), flat[flat != 0]])
    return [
        numpy_helper.from_array(np.packbits(flat != 0), f"{name}_mask"),
        numpy_helper.from_array(kept, f"{name}_values"),
        numpy_helper.from_array(np.array(values.shape, np.int64), f"{name}_shape"),
    ]
