"""Training that knows about the rounding to come; it decides weights, so it belongs to the trunk.

Both kinds are a second, short training after the fine-tune, with its batch size, optimizer and teacher. ``epochs``
are passes over the training split, ``lr`` is the peak learning rate.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.parts.base import Part


class NoQat(Part):
    """The weights are trained in float alone."""

    kind: Literal["none"] = "none"


class WeightQat(Part):
    """Every weight ends on a lattice of its output channel, so that storing ``bits`` a weight loses nothing.

    8, 4 and 3 bits: whole multiples of the channel's scale; 2: -1, 0 or 1 times it; 1: -1 or 1 times it. The first
    convolution and the last of the head stay in float.
    """

    kind: Literal["weights"] = "weights"
    bits: Literal[8, 4, 3, 2, 1] = 4
    epochs: int = Field(default=10, ge=1, le=10_000)
    lr: float = Field(default=1e-3, gt=0, le=1)


class Int8Qat(Part):
    """Weights and activations are rounded to 8 bits while training, as ``quantize: int8`` will round them."""

    kind: Literal["int8"] = "int8"
    epochs: int = Field(default=10, ge=1, le=10_000)
    lr: float = Field(default=5e-4, gt=0, le=1)


Qat = Annotated[NoQat | WeightQat | Int8Qat, Field(discriminator="kind")]
