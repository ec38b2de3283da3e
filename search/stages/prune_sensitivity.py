"""Sensitivity: how much the loss rises as each layer is pruned alone, and how much of each layer to prune for it.

Known from Han et al. 2015 (arXiv:1506.02626) and Li et al. 2017 (arXiv:1608.08710).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch_pruning as tp
from torch import Tensor, nn

from search.cache import StageCache
from search.stages.labelled import Batch, batch_loss
from search.stages.prune_importance import Importance
from search.stages.prune_layers import whole_layers
from spaces.recipe import ChannelPruning

LEVELS = (0.25, 0.5, 0.75, 1.0)  # shares of a group's channels that are silenced; the last leaves one channel
BATCHES = 2  # of those at hand; the same images at every level, so that the losses can be compared

Curves = dict[str, list[float]]  # by a group's first layer: the rise of the loss at each of LEVELS


def sensitive_ratios(
    model: nn.Module,
    part: ChannelPruning,
    importance: Importance,
    *,
    image_size: int,
    batches: Sequence[Batch],
    protected: Sequence[nn.Module],
    cache: StageCache | None,
) -> dict[nn.Module, float]:
    """The share of channels to remove, by the first layer of each group that may be pruned.

    Args:
        model: as it is pruned, its C2f blocks two convolutions.
        part: the method, ratio and maximum.
        importance: scores the channels, of which the lowest are tried first.
        image_size: the side of the square input, in pixels.
        batches: labelled training batches, of which the first ``BATCHES`` are looked at.
        protected: layers that keep all of their channels.
        cache: keeps the scan, under a name that follows from everything it depends on; None keeps nothing.
    """
    graph = tp.DependencyGraph().build_dependency(model, torch.zeros(1, 3, image_size, image_size))

    def look() -> Curves:
        return scan(model, graph, importance, batches[:BATCHES])

    name = f"sensitivity-{_key(model, part.method, image_size, batches)}"
    curves = look() if cache is None else cache.get(name, look, load=_load, save=_save)
    names = {module: name for name, module in model.named_modules()}
    found = {names[_root(group)]: _root(group) for group in _groups(graph, protected)}
    roots = {name: root for name, root in found.items() if name in curves}
    ratios = spend(
        {name: curves[name] for name in roots},
        {name: root.out_channels for name, root in roots.items()},
        ratio=part.ratio,
        max_ratio=part.max_ratio,
    )
    return {root: ratios[name] for name, root in roots.items()}


def scan(model: nn.Module, graph: tp.DependencyGraph, importance: Importance, batches: Sequence[Batch]) -> Curves:
    """The rise of the mean loss on ``batches`` when each group alone, if it has scores, loses its lowest channels."""
    names = {module: name for name, module in model.named_modules()}
    before = _loss(model, batches)
    curves: Curves = {}
    for group in _groups(graph, whole_layers(model)):
        scores = importance(group)
        if scores is None:  # such as of a group without a norm, by its scale: it is not pruned
            continue
        order = scores.argsort()
        curve = curves.setdefault(names[_root(group)], [])
        for level in LEVELS:
            channels = order[: min(round(level * len(order)), len(order) - 1)].tolist()
            with silenced(graph, group, channels):
                curve.append(_loss(model, batches) - before)
    return curves


@contextmanager
def silenced(graph: tp.DependencyGraph, group: tp.Group, channels: list[int]) -> Generator[None]:
    """Puts ``channels`` of ``group`` to zero at every layer that reads them: the same numbers as without them."""
    root = group[0].dep
    part = graph.get_pruning_group(root.target.module, root.handler, channels) if channels else []
    readers = [
        (dep.target.module, list(idxs))
        for dep, idxs in part
        if isinstance(dep.target.module, (nn.modules.conv._ConvNd, nn.Linear))
        and graph.is_in_channel_pruning_fn(dep.handler)
    ]
    handles = [module.register_forward_pre_hook(_zeroes(idxs)) for module, idxs in readers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def spend(
    curves: Mapping[str, Sequence[float]], channels: Mapping[str, int], *, ratio: float, max_ratio: float
) -> dict[str, float]:
    """The share to remove of each group, so that the share ``ratio`` of all channels goes where it hurts least.

    Every group is pruned as far as its own rise of the loss stays below one bound, the lowest that meets the budget.

    Args:
        curves: by group, the rise of the loss at each of ``LEVELS``; read as rising and straight in between.
        channels: by group, how many it has.
        ratio: the share of the channels of all groups together.
        max_ratio: the largest share of one group; at least ``ratio``.
    """
    rising = {name: np.maximum.accumulate([0.0, *curve]) for name, curve in curves.items()}

    def shares(bound: float) -> dict[str, float]:
        return {name: min(_reached(curve, bound), max_ratio) for name, curve in rising.items()}

    def spent(own: dict[str, float]) -> float:
        return sum(channels[name] * share for name, share in own.items())

    budget = ratio * sum(channels.values())
    low, high = -1.0, max(float(curve[-1]) for curve in rising.values())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(shares(middle)) < budget else (low, middle)
    # Where curves are level the spending jumps, so the budget is met between the two bounds.
    less, more = shares(low), shares(high)
    gap = spent(more) - spent(less)
    weight = (budget - spent(less)) / gap if gap > 0 else 0.0
    return {name: less[name] + weight * (more[name] - less[name]) for name in less}


def _reached(curve: np.ndarray, bound: float) -> float:
    """The largest share at which a rising curve over 0 and ``LEVELS`` is at most ``bound``."""
    above = int(np.searchsorted(curve, bound, side="right"))
    shares = (0.0, *LEVELS)
    if above == 0 or above == len(curve):
        return shares[max(above - 1, 0)]
    low, high = float(curve[above - 1]), float(curve[above])
    return shares[above - 1] + (bound - low) / (high - low) * (shares[above] - shares[above - 1])


def _groups(graph: tp.DependencyGraph, protected: Sequence[nn.Module]) -> list[tp.Group]:
    return list(graph.get_all_groups([module for layer in protected for module in layer.modules()]))


def _root(group: tp.Group) -> nn.Conv2d:
    return group[0].dep.target.module


def _zeroes(channels: list[int]) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        axis = -1 if isinstance(module, nn.Linear) else 1
        return inputs[0].index_fill(axis, torch.tensor(channels, device=inputs[0].device), 0.0)

    return hook


@torch.no_grad()
def _loss(model: nn.Module, batches: Sequence[Batch]) -> float:
    return sum(float(batch_loss(model, batch)) for batch in batches) / len(batches)


def _load(path: Path) -> Curves:
    return json.loads(path.read_text(encoding="utf-8"))


def _save(curves: Curves, path: Path) -> None:
    path.write_text(json.dumps(curves), encoding="utf-8")


def _key(model: nn.Module, method: str, image_size: int, batches: Sequence[Batch]) -> str:
    """Names the scan by the model's layers and weights, the images and labels, and how they are looked at."""
    content = hashlib.sha256(f"{model}{method}{image_size}{LEVELS}{BATCHES}".encode())
    tensors = [*model.state_dict().values()]
    for batch in batches:  # all of them: the method may look at more than the scan does
        tensors += [batch[name] for name in ("img", "batch_idx", "cls", "bboxes") if name in batch]
    for tensor in tensors:
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
