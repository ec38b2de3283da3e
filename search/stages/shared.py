"""What the processes of a data-parallel training share: gradients, the measure of the loss, running statistics.

Each process sees its share of a batch, and all take the step that one process would take on the whole batch: up to
rounding, and but for batch normalization, which each does with the mean and variance of its own share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from ultralytics.utils.torch_utils import TORCH_2_13

Loss = tuple[Tensor, dict[str, Tensor]]


def shared_gradients(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """``model`` as each process trains it, with the gradients of all averaged after each backward pass."""
    sync: dict[str, Any] = {"forward_sync_buffers" if TORCH_2_13 else "broadcast_buffers": False}
    return DistributedDataParallel(
        model,
        device_ids=None if device.type == "cpu" else [device.index],
        find_unused_parameters=True,  # of a head whose branch does not learn, say
        **sync,  # ``share_statistics`` does it
    )


def agree(flag: bool) -> bool:
    """Whether ``flag`` is true in every process."""
    flags: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(flags, flag)
    return all(flags)


def share_loss(criterion: Any) -> Any:
    """``criterion``, changed in place or wrapped so that the losses of all processes add up to that of the whole batch.

    A detector's is divided by the sum of the target scores in its batch, a classifier's is the mean of its images.
    What a teacher adds is a mean over each process's own images.
    """
    labels = getattr(criterion, "labels", criterion)
    if not hasattr(labels, "assigner"):
        return _averaged(criterion)
    labels.loss = _measured_together(labels)
    return criterion


def share_statistics(model: nn.Module) -> None:
    """Gives the running statistics of all processes their mean, in place."""
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.detach().flatten().float() for buffer in buffers])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for buffer, mean in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def _measured_together(part: Any) -> Callable[[Any, dict[str, Any]], Loss]:
    """The ``loss`` of one of Ultralytics' detection losses, divided by the sum of the target scores of all processes.

    The trainer multiplies the loss by the number of processes, and their gradients are averaged: so they are added. A
    process has multiplied its own by the size of its share instead of the whole batch.
    """
    scores: list[Tensor] = []
    part.assigner.register_forward_hook(lambda module, inputs, found: scores.append(found[2].sum()))
    own = part.loss

    def loss(preds: Any, batch: dict[str, Any]) -> Loss:
        value, items = own(preds, batch)
        mine = scores.pop()
        every = mine.clone()
        dist.all_reduce(every)
        return value * dist.get_world_size() * mine.clamp(min=1) / every.clamp(min=1), items

    return loss


def _averaged(criterion: Any) -> Callable[[Any, dict[str, Any]], Loss]:
    def loss(preds: Any, batch: dict[str, Any]) -> Loss:
        value, items = criterion(preds, batch)
        return value / dist.get_world_size(), items

    return loss
