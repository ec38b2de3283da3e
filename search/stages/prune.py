"""Structured pruning: whole channels are removed, by Torch-Pruning's dependency graph (arXiv:2301.12900)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
import torch_pruning as tp
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import Detect

from search.stages.c2f import from_two_convs, to_two_convs
from spaces.recipe import ChannelPrune

Batch = dict[str, Any]  # an Ultralytics training batch: "img" (N, 3, H, W) float in [0, 1], "cls", "bboxes", …

IMPORTANCES: dict[str, Callable[[], Callable[..., Tensor | None]]] = {
    "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "bn_scale": lambda: tp.importance.BNScaleImportance(),
    "lamp": lambda: tp.importance.LAMPImportance(p=2),
    "taylor": lambda: tp.importance.GroupTaylorImportance(),
}
NEEDS_GRADIENTS = frozenset({"taylor"})


def prune_channels(model: nn.Module, part: ChannelPrune, *, image_size: int, batches: Sequence[Batch]) -> nn.Module:
    """A physically smaller copy of ``model``, which reloads, trains, fuses and exports like the original.

    The channels that the head puts out are kept, since they are the model's answer; every other layer of the head
    is pruned too.

    Args:
        model: a detection model of Ultralytics.
        part: method, ratio, scope and rounding.
        image_size: the side of the square input, in pixels, with which the graph is traced.
        batches: labelled training batches, used by the methods in ``NEEDS_GRADIENTS``; others ignore them.
    """
    pruned = deepcopy(model).eval()
    to_two_convs(pruned)
    for parameter in pruned.parameters():
        parameter.requires_grad_(True)  # loaded weights may be frozen, and the tracer skips frozen layers
    if part.method in NEEDS_GRADIENTS:
        _accumulate_gradients(pruned, batches)
    pruner = _BoundedPruner(
        pruned,
        torch.zeros(1, 3, image_size, image_size),
        importance=IMPORTANCES[part.method](),
        global_pruning=part.scope == "global",
        pruning_ratio=part.ratio,
        max_pruning_ratio=part.max_ratio,
        ignored_layers=output_layers(pruned),
        round_to=part.round_to,
    )
    pruner.step()
    from_two_convs(pruned)
    pruned.zero_grad()
    freeze_dfl(pruned)
    return pruned


def output_layers(model: nn.Module) -> list[nn.Module]:
    """The layers whose channels mean something: the head's last convolutions and its box decoder."""
    protected: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, Detect):
            protected += [cast(nn.Sequential, branch)[-1] for branch in (*module.cv2, *module.cv3)]
            protected.append(module.dfl)
    return protected


def freeze_dfl(model: nn.Module) -> None:
    """The box decoder's weights are the numbers 0 to 15, never trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".dfl" not in name)


class _BoundedPruner(tp.pruner.BasePruner):
    """Keeps some channels of every layer, and of a global ranking as many as ``max_pruning_ratio`` says.

    The library checks that bound only between the steps of iterative pruning. A layer that rounds down to no channels
    it leaves as it is, so that a higher ratio could give a larger model.
    """

    def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
        """How many channels of a group go, when its ranking says ``n_pruned``."""
        share = 1 - self.max_pruning_ratio if self.global_pruning else 0.0
        least = max(1, math.ceil(round(current_channels * share, 6)))
        least = math.ceil(least / round_to) * round_to
        kept = current_channels - n_pruned
        return current_channels - min(current_channels, max(kept - kept % round_to, least))


def _accumulate_gradients(model: nn.Module, batches: Sequence[Batch]) -> None:
    assert batches, "this pruning method needs labelled batches"
    model.zero_grad()
    model.args = get_cfg()  # pyright: ignore[reportArgumentType]  # the loss reads its weights from there
    for batch in batches:
        loss: Tensor = model.loss(batch)[0]  # pyright: ignore[reportCallIssue]
        loss.sum().backward()
    model.criterion = None  # pyright: ignore[reportArgumentType]  # it refers to the layers before pruning
