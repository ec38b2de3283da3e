"""Labelled batches and the training loss on them, for stages that ask the loss without training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg

Batch = dict[str, Any]  # an Ultralytics training batch: "img" (N, 3, H, W) float in [0, 1], "cls", "bboxes", …


def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The training loss of ``batch``, a scalar: the sum of its parts, in the mode that ``model`` is in."""
    args = getattr(model, "args", None)
    model.args = get_cfg()  # pyright: ignore[reportArgumentType]  # the loss reads its weights from there
    loss: Tensor = model.loss(batch)[0]  # pyright: ignore[reportCallIssue]
    model.args = args  # pyright: ignore[reportArgumentType]
    model.criterion = None  # pyright: ignore[reportArgumentType]  # it refers to the layers as they are now
    return loss.sum()


def single_images(batch: Batch) -> list[Batch]:
    """The images of ``batch`` as batches of one."""
    images: list[Batch] = []
    for index, image in enumerate(batch["img"]):
        own = batch["batch_idx"] == index
        boxes = {"cls": batch["cls"][own], "bboxes": batch["bboxes"][own]}
        images.append({"img": image[None], "batch_idx": torch.zeros(int(own.sum())), **boxes})
    return images
