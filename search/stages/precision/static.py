"""Static quantization by ONNX Runtime's own quantizer: ranges of activations are measured on calibration images.

On x86 ONNX Runtime fuses 8-bit convolutions only for unsigned activations with signed weights; the quantizer's
default (signed with signed) is slower than float.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from search.stages.precision.calibration import (
    CALIBRATORS,
    PERCENTILE,
    Images,
    ImageSource,
    Reader,
    fingerprints,
    write_entropy_ranges,
)
from search.stages.precision.graph import at_opset, prepared, set_metadata
from search.stages.precision.layers import decode_nodes, float_nodes
from spaces.parts.quantize import Calibrator, Int8Static, Int16


def to_int8(source: Path, part: Int8Static, images: ImageSource, path: Path) -> None:
    """Writes the float file at ``source`` to ``path`` in the 8-bit form that ONNX Runtime fuses."""
    model, seen = prepared(source), images(part.images)
    quantized = quantized_model(
        model,
        seen,
        calibrator=part.calibrator,
        exclude=float_nodes(model, part.head),
        per_channel=part.per_channel,
        symmetric=part.symmetric,
    )
    save(quantized, source, seen, path)


def to_int16(source: Path, part: Int16, images: ImageSource, path: Path) -> None:
    """Writes the float file at ``source`` to ``path`` with 16-bit activations and 8-bit weights."""
    model, seen = at_opset(prepared(source), 21), images(part.images)
    exclude = decode_nodes(model)
    activations = QuantType.QUInt16
    save(
        quantized_model(model, seen, calibrator=part.calibrator, exclude=exclude, activations=activations),
        source,
        seen,
        path,
    )


def quantized_model(
    model: onnx.ModelProto,
    images: Images,
    *,
    calibrator: Calibrator,
    exclude: Collection[str],
    per_channel: bool = True,
    symmetric: bool = False,
    activations: QuantType = QuantType.QUInt8,
    overrides: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """``model`` with QuantizeLinear and DequantizeLinear around every node but those named in ``exclude``.

    Args:
        model: a float model as ``prepared`` gives it; left untouched.
        images: for calibration.
        calibrator: how the range of an activation is chosen.
        exclude: names of the nodes that stay in float.
        per_channel: whether weights have a scale for each output channel, or one a tensor.
        symmetric: whether the range of activations is centred on 0.
        activations: their type; weights are always signed 8-bit integers.
        overrides: ONNX Runtime's ``TensorQuantOverrides``: other types for single tensors.
    """
    options = {
        "ActivationSymmetric": symmetric,
        "CalibPercentile": PERCENTILE,
        "CalibTensorRangeSymmetric": False,  # what the percentile would do unasked
        "TensorQuantOverrides": overrides or {},
    }
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        before, after, ranges = (Path(folder) / name for name in ("float.onnx", "quantized.onnx", "ranges.json"))
        onnx.save(model, before)
        if calibrator == "entropy":
            write_entropy_ranges(before, images, ranges)
        quantize_static(
            str(before),
            str(after),
            Reader(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            per_channel=per_channel,
            calibrate_method=CALIBRATORS[calibrator],
            nodes_to_exclude=list(exclude),
            extra_options=options,
            calibration_cache_path=ranges if calibrator == "entropy" else None,
        )
        return onnx.load(after)


def save(model: onnx.ModelProto, source: Path, images: Images, path: Path) -> None:
    """Writes a quantized model with the properties of ``source`` and the names of its calibration images."""
    set_metadata(model, source, fingerprints(images))
    onnx.save(model, path)
