"""Which channels are removed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spaces.parts.base import Part


class NoPrune(Part):
    """Every channel stays."""

    kind: Literal["none"] = "none"


class ChannelPrune(Part):
    """Structured pruning: whole channels are removed, so the model is physically smaller.

    ``ratio`` is the share of channels removed: of each layer (``scope: layer``), or of the whole model by one
    ranking (``scope: global``, where no layer loses more than ``max_ratio``). Channel counts are kept multiples
    of ``round_to``, always rounding down.
    """

    kind: Literal["channels"] = "channels"
    method: Literal["l1", "l2", "bn_scale", "taylor", "lamp"] = "l2"
    ratio: float = Field(gt=0, lt=1)
    scope: Literal["layer", "global"] = "layer"
    round_to: Literal[1, 4, 8, 16, 32] = 8
    max_ratio: float = Field(default=0.9, gt=0, lt=1)

    @model_validator(mode="after")
    def _bounded(self) -> ChannelPrune:
        if self.scope == "global" and self.max_ratio < self.ratio:
            raise ValueError(f"max_ratio {self.max_ratio} is below ratio {self.ratio}: no layer could reach it")
        return self


Prune = Annotated[NoPrune | ChannelPrune, Field(discriminator="kind")]
