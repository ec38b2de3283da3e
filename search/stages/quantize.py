"""Turns a float ONNX file into a smaller or faster one, by ONNX Runtime's own tools.

On x86 ONNX Runtime fuses 8-bit convolutions only for unsigned activations with signed weights; the quantizer's
default (signed with signed) is slower than float.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from spaces.recipe import Fp16, Fp32, Int8Static, Part

Images = Sequence[np.ndarray]  # each (1, 3, H, W) float32 in [0, 1]
ImageSource = Callable[[int], Images]  # gives so many calibration images

CALIBRATORS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


def quantize(source: Path, part: Fp32 | Fp16 | Int8Static, *, images: ImageSource, path: Path) -> Path:
    """Writes the file at ``source`` in the precision of ``part`` to ``path``, whole or not at all; returns it.

    Args:
        source: a float ONNX file written by ``export_onnx``.
        part: the precision.
        images: gives so many calibration images; called only by kinds that need some.
        path: where the new file goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / "model.onnx"
        PRECISIONS[type(part)](source, part, images, temporary)
        os.replace(temporary, path)
    return path


def head_nodes(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes of the detection head, in the order of the graph."""
    indices = [int(found[1]) for node in model.graph.node if (found := re.match(r"/model\.(\d+)/", node.name))]
    return [node.name for node in model.graph.node if node.name.startswith(f"/model.{max(indices)}/")]


def decode_nodes(model: onnx.ModelProto) -> list[str]:
    """The head's nodes after its convolutions: they turn logits into boxes and lose everything in 8 bits."""
    return [name for name in head_nodes(model) if not re.search(r"/cv[23]\.", name)]


def float_nodes(model: onnx.ModelProto, head: str) -> list[str]:
    """The nodes that stay in float for a choice of ``Int8Static.head``."""
    if head == "float":
        return head_nodes(model)
    # A branch is cv2.<level>.<layer>; its third layer is the last convolution.
    outputs = [name for name in head_nodes(model) if re.search(r"/cv[23]\.\d\.2/", name)]
    return decode_nodes(model) + (outputs if head == "float_output" else [])


class _Reader(CalibrationDataReader):
    """Feeds images to the calibrator one by one."""

    def __init__(self, name: str, images: Images) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def _to_fp32(source: Path, part: Fp32, images: ImageSource, path: Path) -> None:
    path.write_bytes(source.read_bytes())


def _to_int8(source: Path, part: Int8Static, images: ImageSource, path: Path) -> None:
    prepared = path.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    quantize_static(
        str(prepared),
        str(path),
        _Reader(model.graph.input[0].name, images(part.images)),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=part.per_channel,
        calibrate_method=CALIBRATORS[part.calibrator],
        nodes_to_exclude=float_nodes(model, part.head),
    )
    _copy_metadata(source, path)


def _to_fp16(source: Path, part: Fp16, images: ImageSource, path: Path) -> None:
    model = onnx.load(source)
    # The decode step multiplies and exponentiates beyond the range of 16 bits.
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=decode_nodes(model))
    _drop_round_trips(half.graph)
    OnnxModel.graph_topological_sort(half.graph)  # the converter appends its casts, which is no valid ONNX
    onnx.save(half, path)
    _copy_metadata(source, path)


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


def _copy_metadata(source: Path, path: Path) -> None:
    """The quantizer drops some of the properties that Ultralytics reads back: names, stride, task."""
    model = onnx.load(path)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load(source).metadata_props)
    onnx.save(model, path)


# How each part writes its file. A precision is a type, a function and a line here.
PRECISIONS: dict[type[Part], Callable[[Path, Any, ImageSource, Path], None]] = {
    Fp32: _to_fp32,
    Fp16: _to_fp16,
    Int8Static: _to_int8,
}
