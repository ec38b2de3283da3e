"""In which numbers the file computes and stores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.parts.base import Part

Calibrator = Literal["minmax", "entropy", "percentile"]


class Fp32(Part):
    """Weights and arithmetic in 32-bit float."""

    kind: Literal["fp32"] = "fp32"


class Fp16(Part):
    """Weights stored in 16-bit float: half the size; a CPU still computes in 32 bits, with casts in between."""

    kind: Literal["fp16"] = "fp16"


class Int8Static(Part):
    """Static 8-bit quantization in the form that ONNX Runtime fuses: unsigned activations, signed weights.

    ``head`` says how much of the detection head stays in float beside its decode step, which always does:
    nothing more (``int8``), its last convolutions (``float_output``), or all of it (``float``).
    ``symmetric`` centres the range of activations on 0 (zero point 128), as some accelerators need; half of the
    codes are then unused where values are never negative. ``images`` is the number of calibration images, drawn
    from the training split.
    """

    kind: Literal["int8"] = "int8"
    calibrator: Calibrator = "minmax"
    per_channel: bool = True
    symmetric: bool = False
    head: Literal["int8", "float_output", "float"] = "int8"
    images: int = Field(default=32, ge=1, le=1024)


class Int8Dynamic(Part):
    """8-bit weights, and 8-bit activations whose range is found anew for every image: no calibration.

    The convolutions add up integers (ConvInteger), but everything between them stays in float, with a pass over
    each activation to find its range; on a CPU this gains size, not speed.
    """

    kind: Literal["int8_dynamic"] = "int8_dynamic"


class Int16(Part):
    """Static quantization with 16-bit activations and 8-bit weights, for accelerators that compute in it.

    ONNX Runtime's CPU provider has no such convolution: it computes in float between roundings and is slower than
    float. ``calibrator`` and ``images`` as in ``int8``.
    """

    kind: Literal["int16"] = "int16"
    calibrator: Calibrator = "minmax"
    images: int = Field(default=32, ge=1, le=1024)


class WeightOnly(Part):
    """Weights stored in ``bits`` bits each with a scale for each output channel; arithmetic in 32-bit float.

    The weights are unpacked once, when the file is loaded. ``skip_ends`` leaves the first and the last
    convolutions as they are.
    """

    kind: Literal["weight_only"] = "weight_only"
    bits: Literal[8, 4, 3, 2, 1]
    skip_ends: bool = True


class LowBit(Part):
    """Computes as ``int8`` does; weights are stored in ``bits`` bits each with a scale for each output channel.

    ``skip_ends`` leaves the first and the last convolutions at 8 bits; ``calibrator`` and ``images`` as in
    ``int8``.
    """

    kind: Literal["low_bit"] = "low_bit"
    bits: Literal[4, 3, 2, 1]
    skip_ends: bool = True
    calibrator: Calibrator = "minmax"
    images: int = Field(default=32, ge=1, le=1024)


class Mixed(Part):
    """``int8`` but for the layers that suffer most from it, which compute in ``fallback``.

    ``budget`` is the share of the convolutions that may stay out of 8 bits. A layer's damage is the error of the
    head's outputs when that layer alone is in 8 bits. ``calibrator`` and ``images`` as in ``int8``.
    """

    kind: Literal["mixed"] = "mixed"
    budget: float = Field(gt=0, lt=1)
    fallback: Literal["float", "int16"] = "float"
    calibrator: Calibrator = "minmax"
    images: int = Field(default=32, ge=1, le=1024)


Quantize = Annotated[
    Fp32 | Fp16 | Int8Static | Int8Dynamic | Int16 | WeightOnly | LowBit | Mixed, Field(discriminator="kind")
]
