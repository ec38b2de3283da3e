"""How the weights are trained after everything that changed the graph."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from spaces.parts.base import Part


class NoFinetune(Part):
    """The weights are used as they are after the steps before."""

    kind: Literal["none"] = "none"


class Finetune(Part):
    """Training on the training split, by Ultralytics' own trainer.

    ``epochs`` are passes over the split, in steps of ``batch`` images. ``lr`` is the peak learning rate, for
    ``optimizer``: SGD wants about five times what the Adam family wants. It falls to a hundredth: in a line, as a
    cosine, or ``one_cycle``, which first rises from a 25th over 30 % of the epochs.

    ``weight_decay`` pulls weights towards zero (L2; decoupled in AdamW), ``l1`` makes some of them exactly zero: each
    step moves every convolution weight by learning rate times ``l1`` towards zero. ``label_smoothing`` is the share of
    an object's score that is spread evenly over all classes.

    ``freeze`` keeps the first so many layers as they are, ``freeze_names`` the parameters whose names match this
    pattern (``model.22.cv2.*``); none if empty. ``ema`` is which moving average of the weights is the result:
    Ultralytics' own, whose horizon grows over thousands of steps, so that it hardly averages in a short training; one
    with a horizon of one ``epoch``; or ``none``: the last weights.

    ``mosaic`` is the probability that four pictures are put together, ``close_mosaic`` the last share of the epochs
    without it. ``swap_epochs`` spreads the swap of the activation over the first so many epochs (0: at once).
    """

    kind: Literal["train"] = "train"
    epochs: int = Field(ge=1, le=10_000)
    lr: float = Field(default=2e-3, gt=0, le=1)
    schedule: Literal["linear", "cosine", "one_cycle"] = "cosine"
    optimizer: Literal["adamw", "adam", "nadam", "radam", "rmsprop", "sgd"] = "adamw"
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    l1: float = Field(default=0.0, ge=0, le=10)
    batch: int = Field(default=16, ge=1, le=4096)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    freeze: int = Field(default=0, ge=0, le=1000)
    freeze_names: str = ""
    ema: Literal["ultralytics", "epoch", "none"] = "ultralytics"
    mosaic: float = Field(default=1.0, ge=0, le=1)
    close_mosaic: float = Field(default=0.25, ge=0, le=1)
    swap_epochs: int = Field(default=0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _swapped_in_time(self) -> Finetune:
        if self.swap_epochs >= self.epochs and self.swap_epochs:
            raise ValueError(
                f"swap_epochs {self.swap_epochs} needs more than {self.epochs} epochs: "
                "the weights must still train with the new activation alone"
            )
        return self


Tune = Annotated[NoFinetune | Finetune, Field(discriminator="kind")]
