"""Dynamic 8-bit quantization by ONNX Runtime's own quantizer: each image brings its own ranges."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from search.stages.precision.calibration import ImageSource
from search.stages.precision.graph import prepared, set_metadata
from search.stages.precision.layers import decode_nodes
from spaces.parts.quantize import Int8Dynamic


def to_int8_dynamic(source: Path, part: Int8Dynamic, images: ImageSource, path: Path) -> None:
    """Writes the float file at ``source`` to ``path`` with ConvInteger in the place of every convolution, and
    MatMulInteger in that of a linear layer.

    The weights have one scale a tensor and are unsigned, the form that every version of the operator computes.
    """
    model = prepared(source)
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "float.onnx"
        onnx.save(model, before)
        quantize_dynamic(
            str(before),
            str(path),
            op_types_to_quantize=["Conv", "MatMul"],  # it takes a linear layer for a product of matrices
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=decode_nodes(model),
        )
    quantized = onnx.load(path)
    set_metadata(quantized, source)
    onnx.save(quantized, path)
