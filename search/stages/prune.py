"""Structured pruning: whole channels are removed, by Torch-Pruning's dependency graph (arXiv:2301.12900)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from math import ceil
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from search.cache import StageCache
from search.stages.c2f import from_two_convs, to_two_convs
from search.stages.labelled import Batch
from search.stages.norm import reestimate_norms
from search.stages.prune_importance import IMPORTANCES, NEEDS_LABELS, Importance
from search.stages.prune_layers import layer_ratios, protected_layers, whole_layers
from search.stages.prune_sensitivity import sensitive_ratios
from search.stages.psa import close_attention, open_attention
from search.stages.traceable import check_traceable
from spaces.recipe import ChannelPruning, LayerwisePrune

Counts = Mapping[str, int]  # channels that a layer puts out, by its name in a model whose C2f are two convolutions


def needs_batches(part: ChannelPruning) -> bool:
    """Whether ``part`` looks at labelled batches."""
    return part.method in NEEDS_LABELS or part.scope == "sensitivity" or part.reestimate_bn


def prune_channels(
    model: nn.Module,
    part: ChannelPruning,
    *,
    image_size: int,
    batches: Sequence[Batch],
    cache: StageCache | None = None,
) -> nn.Module:
    """A physically smaller copy of ``model``, which reloads, trains, fuses and exports like the original.

    The channels that the head puts out are kept, since they are the model's answer; every other layer of the head
    is pruned too.

    Args:
        model: a model of Ultralytics.
        part: method, ratio, scope, rounding and choice of layers.
        image_size: the side of the square input, in pixels, with which the graph is traced.
        batches: labelled training batches; see ``needs_batches``.
        cache: where scans of a model's sensitivity are kept and looked for.

    Raises:
        ValueError: ``part`` leaves no layer to prune.
    """
    pruned = opened(model)
    importance = scorer(pruned, part, batches)
    protected = protected_layers(pruned, part)
    ratios: dict[nn.Module, float] = {}
    if part.scope == "sensitivity":
        ratios = sensitive_ratios(
            pruned, part, importance, image_size=image_size, batches=batches, protected=protected, cache=cache
        )
    if isinstance(part, LayerwisePrune):
        ratios = layer_ratios(pruned, part)
        protected += [layer for layer, ratio in ratios.items() if not ratio]  # rounding would take channels of them
    _remove(
        pruned,
        importance,
        image_size,
        global_pruning=part.scope == "global",
        pruning_ratio=part.ratio,
        pruning_ratio_dict=ratios,
        max_pruning_ratio=part.max_ratio,
        ignored_layers=protected,
        round_to=part.round_to,
    )
    return _closed(pruned, part, batches)


def prune_to(
    model: nn.Module, counts: Counts, part: ChannelPruning, *, image_size: int, batches: Sequence[Batch]
) -> nn.Module:
    """A copy of ``model`` whose layers put out ``counts`` channels, the most important ones; others lose none."""
    pruned = opened(model)
    # Half a channel more than asked, so that rounding down in floating point finds the count.
    ratios = {
        layer: 1 - (counts[name] + 0.5) / layer.out_channels
        for name, layer in _convolutions(pruned)
        if counts[name] < layer.out_channels
    }
    _remove(
        pruned,
        scorer(pruned, part, batches),
        image_size,
        pruning_ratio=0.0,
        pruning_ratio_dict=ratios,
        ignored_layers=whole_layers(pruned),
    )
    return _closed(pruned, part, batches)


def channel_counts(model: nn.Module) -> dict[str, int]:
    """The channels that each convolution of ``model`` puts out, a C2f's first one as two."""
    return {name: layer.out_channels for name, layer in _convolutions(opened(model))}


def opened(model: nn.Module) -> nn.Module:
    """A copy that can be traced and pruned: in eval mode, nothing frozen, and no view that the tracer cannot follow."""
    check_traceable(model)
    copy = deepcopy(model).eval()
    to_two_convs(copy)
    open_attention(copy)
    return copy.requires_grad_(True)  # loaded weights may be frozen, and the tracer skips frozen layers


def scorer(model: nn.Module, part: ChannelPruning, batches: Sequence[Batch]) -> Importance:
    """What scores the channels of an ``opened`` model."""
    assert batches or not needs_batches(part), "this pruning method needs labelled batches"
    importance = IMPORTANCES[part.method](model, batches)
    return lambda group: _own_scores(importance(group), len(group[0].idxs))


def _own_scores(scores: torch.Tensor | None, channels: int) -> torch.Tensor | None:
    """``scores`` without what Torch-Pruning appends to them, so that their mean is 1 again.

    Where a group begins with a depthwise convolution and is read twice, as a ghost module's, its scores by gradients
    are as long as what is read, with zeros at the end: it then chose channels that there are not, and removed none.
    """
    if scores is None or len(scores) == channels:
        return scores
    return scores[:channels] / scores[:channels].mean()


def freeze_dfl(model: nn.Module) -> None:
    """The box decoder's weights are the numbers 0 to 15, never trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".dfl" not in name)


def _remove(model: nn.Module, importance: Importance, image_size: int, **options: Any) -> None:
    """One step of Torch-Pruning's pruner on an ``opened`` model, in place."""
    own: dict[str, Any] = {"in_channel_groups": {}, "out_channel_groups": {}}  # its defaults are shared and filled
    example = torch.zeros(1, 3, image_size, image_size)
    _BoundedPruner(model, example, importance=importance, **own, **options).step()


def _convolutions(model: nn.Module) -> Iterable[tuple[str, nn.Conv2d]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))


def _closed(model: nn.Module, part: ChannelPruning, batches: Sequence[Batch]) -> nn.Module:
    """Undoes ``opened``, in place."""
    from_two_convs(model)
    close_attention(model)
    model.zero_grad()
    freeze_dfl(model)
    if part.reestimate_bn:
        reestimate_norms(model, [batch["img"] for batch in batches])
    return model


class _BoundedPruner(tp.pruner.BasePruner):
    """Keeps some channels of every layer, and where layers share a budget as many as ``max_pruning_ratio`` says.

    The library checks that bound only between the steps of iterative pruning. A layer that rounds down to no channels
    it leaves as it is, so that a higher ratio could give a larger model.
    """

    def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
        """How many channels of a group go, when its ranking says ``n_pruned``."""
        share = 1 - self.max_pruning_ratio if self.global_pruning or self.pruning_ratio_dict else 0.0
        least = max(1, ceil(round(current_channels * share, 6)))
        least = ceil(least / round_to) * round_to
        kept = current_channels - n_pruned
        return current_channels - min(current_channels, max(kept - kept % round_to, least))
