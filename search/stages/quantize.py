"""Turns a float ONNX file into a smaller or faster one: the table of precisions."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.stages.precision.calibration import ImageSource
from search.stages.precision.dynamic import to_int8_dynamic
from search.stages.precision.half import to_fp16
from search.stages.precision.low_bit import to_low_bit
from search.stages.precision.mixed import to_mixed
from search.stages.precision.static import to_int8, to_int16
from search.stages.precision.weight_only import to_weight_only
from spaces.parts.quantize import Quantize
from spaces.recipe import Fp16, Fp32, Int8Dynamic, Int8Static, Int16, LowBit, Mixed, Part, WeightOnly


def quantize(source: Path, part: Quantize, *, images: ImageSource, path: Path) -> Path:
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


def _to_fp32(source: Path, part: Fp32, images: ImageSource, path: Path) -> None:
    path.write_bytes(source.read_bytes())


# How each part writes its file. A precision is a type, a function and a line here.
PRECISIONS: dict[type[Part], Callable[[Path, Any, ImageSource, Path], None]] = {
    Fp32: _to_fp32,
    Fp16: to_fp16,
    Int8Static: to_int8,
    Int8Dynamic: to_int8_dynamic,
    Int16: to_int16,
    WeightOnly: to_weight_only,
    LowBit: to_low_bit,
    Mixed: to_mixed,
}
