"""Which single weights are put to zero, and held there while the model trains; no shape changes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spaces.parts.base import Part


class NoSparsify(Part):
    """No weight is put to zero."""

    kind: Literal["none"] = "none"


class ThresholdSparsify(Part):
    """Weights of convolutions whose absolute value is below ``threshold``."""

    kind: Literal["threshold"] = "threshold"
    threshold: float = Field(gt=0, le=10)


class MagnitudeSparsify(Part):
    """The share ``ratio`` of the weights with the smallest absolute values.

    Of each convolution (``scope: layer``), or of all of them by one ranking (``global``).
    """

    kind: Literal["magnitude"] = "magnitude"
    ratio: float = Field(gt=0, lt=1)
    scope: Literal["layer", "global"] = "layer"


class NMSparsify(Part):
    """At most ``n`` of every ``m`` weights that follow one another along the input channels stay, the largest.

    Convolutions whose input channels are no multiple of ``m``, as the first one's three, stay dense.
    """

    kind: Literal["n_m"] = "n_m"
    n: int = Field(default=2, ge=1, le=31)
    m: int = Field(default=4, ge=2, le=32)

    @model_validator(mode="after")
    def _some_go(self) -> NMSparsify:
        if self.n >= self.m:
            raise ValueError(f"n {self.n} is not below m {self.m}: no weight would be put to zero")
        return self


Sparsify = Annotated[NoSparsify | ThresholdSparsify | MagnitudeSparsify | NMSparsify, Field(discriminator="kind")]
