"""Weights stored in few bits, computed with in 8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from search.stages.precision.calibration import ImageSource
from search.stages.precision.graph import (
    at_opset,
    conv_weights,
    initializers,
    main_opset,
    own_weights,
    prepared,
    prepend_nodes,
    replace_tensors,
)
from search.stages.precision.layers import CONVOLUTIONS, decode_nodes, inner_convs
from search.stages.precision.static import quantized_model, save
from search.stages.precision.storage import OPSETS, TYPES, Stored, add_unpacker, stored_codes
from search.stages.precision.weights import quantize_weights
from spaces.parts.quantize import LowBit

BIAS_ROOM = 2.0**30  # the largest bias, in units of its scale, that leaves room for the sum in 32 bits


def to_low_bit(source: Path, part: LowBit, images: ImageSource, path: Path) -> None:
    """Writes the float file at ``source`` to ``path`` in fused 8-bit arithmetic with weights of ``part.bits`` bits.

    Activations are calibrated with the weights that the codes stand for. Then each 8-bit weight becomes
    codes -> Cast(int8) -> DequantizeLinear, of which ONNX Runtime folds the cast and fuses the rest as before; the
    integer bias follows the weight's new scale.
    """
    model, seen = at_opset(prepared(source), OPSETS[part.bits]), images(part.images)
    inner = inner_convs(model, skip_ends=part.skip_ends)
    own_weights(model, inner)
    packed = {
        name: quantize_weights(weight, part.bits, clip=True) for name, weight in conv_weights(model, inner).items()
    }
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    replace_tensors(
        rounded, {name: [numpy_helper.from_array(codes * scale, name)] for name, (codes, scale) in packed.items()}
    )
    quantized = quantized_model(rounded, seen, calibrator=part.calibrator, exclude=decode_nodes(model))
    _store(quantized, model, packed, part.bits)
    save(quantized, source, seen, path)


def _store(
    quantized: onnx.ModelProto,
    model: onnx.ModelProto,
    packed: dict[str, tuple[np.ndarray, np.ndarray]],
    bits: int,
) -> None:
    """Puts the codes in ``packed``, by the name of the weight in ``model``, into ``quantized``."""
    stored, floats = initializers(quantized), initializers(model)
    makers = {node.output[0]: node for node in quantized.graph.node}
    convs = {node.name: node for node in quantized.graph.node if node.op_type in CONVOLUTIONS}
    tensors: dict[str, list[onnx.TensorProto]] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name not in convs or node.input[1] not in packed:
            continue
        codes, scale = packed[node.input[1]]
        activation, weight, *bias = (makers[name] for name in convs[node.name].input)
        step = numpy_helper.to_array(stored[activation.input[1]])
        scales = scale.ravel().astype(np.float32)
        if bias:  # the convolution of efficient attention has none
            offset = numpy_helper.to_array(floats[node.input[2]])
            scales = np.maximum(scales, np.abs(offset) / (step * BIAS_ROOM)).astype(np.float32)
            tensors |= _bias(bias[0], offset, scales * step)
        held = stored_codes(codes, bits, weight.input[0])
        tensors[weight.input[0]] = list(held.tensors)
        tensors[weight.input[1]] = [numpy_helper.from_array(scales, weight.input[1])]
        nodes += _as_int8(weight, held, native=bits in TYPES)
    replace_tensors(quantized, tensors)
    prepend_nodes(quantized, nodes)
    add_unpacker(quantized, bits, main_opset(quantized))


def _bias(node: onnx.NodeProto, offset: np.ndarray, scale: np.ndarray) -> dict[str, list[onnx.TensorProto]]:
    """The bias ``offset``, (out,), as whole numbers of ``scale``: ONNX Runtime adds it to the sum of products."""
    whole = np.rint(offset / np.where(scale > 0, scale, 1)).astype(np.int32)
    return {
        node.input[0]: [numpy_helper.from_array(whole, node.input[0])],
        node.input[1]: [numpy_helper.from_array(scale.astype(np.float32), node.input[1])],
    }


def _as_int8(dequantize: onnx.NodeProto, held: Stored, *, native: bool) -> list[onnx.NodeProto]:
    """Makes ``dequantize`` read the stored codes; returns the nodes that give it the codes as int8."""
    if not native:
        dequantize.input[0] = held.output
        return list(held.nodes)
    dequantize.input[0] = f"{held.output}_int8"
    return [helper.make_node("Cast", [held.output], [dequantize.input[0]], to=TensorProto.INT8)]
