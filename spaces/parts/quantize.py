"""In which numbers the file computes and stores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.parts.base import Part


class Fp32(Part):
    """Weights and arithmetic in 32-bit float."""

    kind: Literal["fp32"] = "fp32"


class Fp16(Part):
    """Weights stored in 16-bit float: half the size; a CPU still computes in 32 bits."""

    kind: Literal["fp16"] = "fp16"


class Int8Static(Part):
    """Static 8-bit quantization in the form that ONNX Runtime fuses: unsigned activations, signed weights.

    ``head`` says how much of the detection head stays in float beside its decode step, which always does:
    nothing more (``int8``), its last convolutions (``float_output``), or all of it (``float``).
    ``images`` is the number of calibration images, drawn from the training split.
    """

    kind: Literal["int8"] = "int8"
    calibrator: Literal["minmax", "entropy", "percentile"] = "minmax"
    per_channel: bool = True
    head: Literal["int8", "float_output", "float"] = "int8"
    images: int = Field(default=32, ge=1, le=1024)


Quantize = Annotated[Fp32 | Fp16 | Int8Static, Field(discriminator="kind")]
