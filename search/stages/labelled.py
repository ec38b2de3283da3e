"""Labelled batches and the training loss on them, for stages that ask the loss without training."""

from __future__ import annotations

from torch import Tensor, nn
from ultralytics.cfg import get_cfg

from search.tasks.kind import Batch

__all__ = ["Batch", "batch_loss"]


def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The training loss of ``batch``, a scalar: the sum of its parts, in the mode that ``model`` is in."""
    args = getattr(model, "args", None)
    model.args = get_cfg()  # pyright: ignore[reportArgumentType]  # the loss reads its weights from there
    loss: Tensor = model.loss(batch)[0]  # pyright: ignore[reportCallIssue]
    model.args = args  # pyright: ignore[reportArgumentType]
    model.criterion = None  # pyright: ignore[reportArgumentType]  # it refers to the layers as they are now
    return loss.sum()
