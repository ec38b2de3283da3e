"""Which channels are removed, and when."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from spaces.parts.base import Part


class NoPrune(Part):
    """Every channel stays."""

    kind: Literal["none"] = "none"


class ChannelPruning(Part):
    """What every kind of structured pruning has in common: whole channels are removed, so the model is smaller.

    ``method`` scores the channels; ``random`` does so by lot, as a control. ``ratio`` is the share of channels removed:
    of each layer (``scope: layer``), of all layers by one ranking (``global``), or of all layers where it raises the
    loss least (``sensitivity``); in the last two no layer loses more than ``max_ratio``. Channel counts are kept
    multiples of ``round_to``, always rounding down. ``where``, ``include`` and ``exclude`` choose the layers, the last
    two by regular expressions that are searched for in a layer's name, such as ``model.2.cv1.conv``; empty ones choose
    nothing out. Layers that are coupled, by an addition for instance, are pruned if all of them are chosen.
    ``reestimate_bn`` measures the batch norms' statistics anew on training images after each removal.
    """

    method: Literal["l1", "l2", "bn_scale", "taylor", "lamp", "hessian", "fpgm", "attention", "random"] = "l2"
    ratio: float = Field(gt=0, lt=1)
    scope: Literal["layer", "global", "sensitivity"] = "layer"
    round_to: Literal[1, 4, 8, 16, 32] = 8
    max_ratio: float = Field(default=0.9, gt=0, lt=1)
    where: Literal["all", "backbone", "neck", "head"] = "all"
    include: str = ""
    exclude: str = ""
    reestimate_bn: bool = False

    @field_validator("include", "exclude")
    @classmethod
    def _pattern(cls, value: str) -> str:
        return _expression(value)

    @model_validator(mode="after")
    def _bounded(self) -> ChannelPruning:
        if self.scope != "layer" and self.max_ratio < self.ratio:
            raise ValueError(f"max_ratio {self.max_ratio} is below ratio {self.ratio}: no layer could reach it")
        return self


class ChannelPrune(ChannelPruning):
    """All channels are removed at once, before any training."""

    kind: Literal["channels"] = "channels"


class GradualPrune(ChannelPruning):
    """Channels are removed in ``steps`` steps, with ``step_epochs`` epochs of training after each but the last.

    ``order`` says what a step removes: an equal share of every layer's loss (``iterative``), or all that goes of a
    part of the layers, from the input to the output (``shallow_first``) or back (``deep_first``). The channels left
    are scored anew at every step. Training between the steps is as ``finetune`` says, which follows the last one.
    """

    kind: Literal["gradual"] = "gradual"
    order: Literal["iterative", "shallow_first", "deep_first"] = "iterative"
    steps: int = Field(default=4, ge=2, le=64)
    step_epochs: int = Field(default=1, ge=0, le=1000)


class SlimmingPrune(ChannelPruning):
    """Network slimming: training with an L1 penalty on the batch norms' scales, then all channels at once.

    ``sparsity_epochs`` epochs are trained as ``finetune`` says. After each step of the optimizer every scale moves
    towards zero by the learning rate times ``sparsity_weight``, apart from AdamW's own step of up to one learning
    rate, so a weight near 1 holds the two in balance.
    """

    kind: Literal["slimming"] = "slimming"
    method: Literal["l1", "l2", "bn_scale", "taylor", "lamp", "hessian", "fpgm", "attention", "random"] = "bn_scale"
    sparsity_epochs: int = Field(default=5, ge=1, le=1000)
    sparsity_weight: float = Field(default=0.1, gt=0, le=100)


class LayerwisePrune(ChannelPruning):
    """All channels at once, a ratio for each layer: ``ratio`` times its section's factor, or a ratio by its name.

    ``backbone``, ``neck`` and ``head`` are the factors; 0 leaves a section as it is. ``layers`` names single layers,
    whatever section they are in: pairs of a regular expression, searched for in the name, and a ratio, such as
    ``model.2.=0.25, model.22.cv3=0.6``, of which the first that matches counts. Coupled layers are pruned as the
    first of them. No layer loses more than ``max_ratio``.
    """

    kind: Literal["per_layer"] = "per_layer"
    scope: Literal["layer"] = "layer"  # pyright: ignore[reportIncompatibleVariableOverride]  # frozen: narrower is sound
    backbone: float = Field(default=1.0, ge=0, le=4)
    neck: float = Field(default=1.0, ge=0, le=4)
    head: float = Field(default=1.0, ge=0, le=4)
    layers: str = ""

    @field_validator("layers")
    @classmethod
    def _pairs(cls, value: str) -> str:
        named_ratios(value)
        return value


Prune = Annotated[NoPrune | ChannelPrune | LayerwisePrune | GradualPrune | SlimmingPrune, Field(discriminator="kind")]


def named_ratios(layers: str) -> list[tuple[str, float]]:
    """The pairs of an expression and a ratio in ``LayerwisePrune.layers``; raises ValueError for other text."""
    pairs: list[tuple[str, float]] = []
    for text in filter(None, (text.strip() for text in layers.split(","))):
        pattern, _, ratio = text.rpartition("=")
        try:
            pairs.append((_expression(pattern), float(ratio)))
        except ValueError as error:
            raise ValueError(f"layers: {text!r} is not a pattern, = and a ratio: {error}") from error
        if not pattern or not 0 <= pairs[-1][1] < 1:
            raise ValueError(f"layers: {text!r} is not a pattern, = and a ratio from 0 to below 1")
    return pairs


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return text


def training_epochs(part: Part) -> int:
    """Epochs that a pruning part trains by itself, before the fine-tuning that follows it."""
    match part:
        case GradualPrune():
            return (part.steps - 1) * part.step_epochs
        case SlimmingPrune():
            return part.sparsity_epochs
        case _:
            return 0
