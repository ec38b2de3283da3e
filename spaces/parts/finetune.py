"""How the weights are trained after everything that changed the graph."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.parts.base import Part


class NoFinetune(Part):
    """The weights are used as they are after the steps before."""

    kind: Literal["none"] = "none"


class Finetune(Part):
    """Training with AdamW on the training split, by Ultralytics' own trainer.

    ``lr`` is the peak learning rate; it falls to a hundredth of that, in a line or as a cosine.
    """

    kind: Literal["train"] = "train"
    epochs: int = Field(ge=1, le=10_000)
    lr: float = Field(default=2e-3, gt=0, le=1)
    schedule: Literal["linear", "cosine"] = "cosine"
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    batch: int = Field(default=16, ge=1, le=4096)


Tune = Annotated[NoFinetune | Finetune, Field(discriminator="kind")]
