"""Pruning that trains: step by step in an order, or after training for sparsity.

The latency of a recipe is measured before anything is trained, so the layers' channel counts are those of pruning
at once, without training, whatever the order. The order and the training decide which channels are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from search.cache import StageCache
from search.stages.labelled import Batch
from search.stages.prune import Counts, channel_counts, prune_channels, prune_to
from search.stages.trainer import AfterStep
from spaces.recipe import ChannelPruning, GradualPrune, SlimmingPrune

Train = Callable[[nn.Module, int, AfterStep | None], nn.Module]  # the model trained for so many epochs


def prune_untrained(
    model: nn.Module,
    part: ChannelPruning,
    *,
    image_size: int,
    batches: Sequence[Batch],
    cache: StageCache | None = None,
) -> nn.Module:
    """``prune_in_training`` without the training; the same channel counts. Arguments as ``prune_channels``."""
    if isinstance(part, GradualPrune):
        return prune_in_training(
            model, part, image_size=image_size, batches=batches, cache=cache, train=lambda model, epochs, after: model
        )
    return prune_channels(model, part, image_size=image_size, batches=batches, cache=cache)


def prune_in_training(
    model: nn.Module,
    part: ChannelPruning,
    *,
    image_size: int,
    batches: Sequence[Batch],
    train: Train,
    cache: StageCache | None = None,
) -> nn.Module:
    """A smaller copy of ``model``, pruned and trained as ``part`` says; without the fine-tuning after it.

    Args:
        model: a model of Ultralytics, before pruning.
        part: what to prune, in which order, and how much to train.
        image_size: the side of the square input, in pixels.
        batches: labelled training batches, used as ``prune_channels`` does.
        train: trains a copy of a model.
        cache: as in ``prune_channels``.
    """
    last = channel_counts(prune_channels(model, part, image_size=image_size, batches=batches, cache=cache))
    match part:
        case GradualPrune():
            *early, final = schedule(channel_counts(model), last, part)
            for counts in early:
                model = prune_to(model, counts, part, image_size=image_size, batches=batches)
                if part.step_epochs:
                    model = train(model, part.step_epochs, None)
        case SlimmingPrune():
            model, final = train(model, part.sparsity_epochs, shrink_scales(part.sparsity_weight)), last
        case _:
            final = last
    pruned = prune_to(model, final, part, image_size=image_size, batches=batches)
    assert channel_counts(pruned) == last, "the steps did not arrive at the planned channel counts"
    return pruned


def schedule(first: Counts, last: Counts, part: GradualPrune) -> list[dict[str, int]]:
    """The channel counts after each of the steps, the last of which are ``last``."""
    if part.order == "iterative":
        shares = [step / part.steps for step in range(1, part.steps + 1)]
        return [{name: count - int(share * (count - last[name])) for name, count in first.items()} for share in shares]
    names = [name for name in first if last[name] < first[name]]
    if part.order == "deep_first":
        names.reverse()
    stages: list[dict[str, int]] = []
    for chunk in np.array_split(names, min(part.steps, max(len(names), 1))):
        counts = stages[-1] if stages else dict(first)
        stages.append({**counts, **{str(name): last[str(name)] for name in chunk}})
    return stages


def shrink_scales(weight: float) -> AfterStep:
    """The L1 penalty of network slimming (Liu et al. 2017, arXiv:1708.06519) as a step towards zero.

    Every scale of a batch norm moves by learning rate times ``weight`` and stops at zero: the proximal operator of
    the L1 norm. Added to the loss, AdamW would divide the penalty by the size of the gradient.
    """

    def shrink(model: nn.Module, rate: float) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                scale = module.weight.data
                scale.copy_(scale.sign() * (scale.abs() - rate * weight).clamp(min=0))

    return shrink
