"""Weights stored in few bits, computed with in float."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from search.stages.precision.calibration import ImageSource
from search.stages.precision.graph import (
    at_opset,
    conv_weights,
    main_opset,
    prepend_nodes,
    replace_tensors,
    set_metadata,
)
from search.stages.precision.layers import inner_convs
from search.stages.precision.storage import OPSETS, add_unpacker, stored_codes
from search.stages.precision.weights import quantize_weights
from spaces.parts.quantize import WeightOnly


def to_weight_only(source: Path, part: WeightOnly, images: ImageSource, path: Path) -> None:
    """Writes the float file at ``source`` to ``path`` with weights of ``part.bits`` bits.

    Each weight becomes codes -> Cast -> Mul by its scales. These read constants only, and they are no
    DequantizeLinear, which ONNX Runtime would leave to every run: it folds them when it loads the file.
    """
    model = at_opset(onnx.load(source), OPSETS[part.bits])
    tensors: dict[str, list[onnx.TensorProto]] = {}
    nodes: list[onnx.NodeProto] = []
    for name, weight in conv_weights(model, inner_convs(model, skip_ends=part.skip_ends)).items():
        codes, scale = quantize_weights(weight, part.bits, clip=True)
        stored = stored_codes(codes, part.bits, name)
        tensors[name] = [*stored.tensors, numpy_helper.from_array(scale, f"{name}_scale")]
        nodes += [
            *stored.nodes,
            helper.make_node("Cast", [stored.output], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]),
        ]
    replace_tensors(model, tensors)
    prepend_nodes(model, nodes)
    add_unpacker(model, part.bits, main_opset(model))
    set_metadata(model, source)
    onnx.save(model, path)
