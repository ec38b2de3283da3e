"""Trains a model, pruned or not, on Ultralytics' own trainer, with or without a teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search.data import IMAGE_SUFFIXES
from search.measure.quiet import working
from search.stages.activation import drop_old
from search.stages.checkpoint import kept_random_state
from search.stages.distill import add_projectors, lesson
from search.stages.losses import label_loss
from search.stages.prune import freeze_dfl
from search.stages.schedules import FINAL
from search.stages.trainer import DIVERGED, AfterStep, trainer_for
from search.tasks.table import kind_of_model
from search.ultra import quiet_ultralytics
from spaces.recipe import Distill, Finetune, UnlabeledDistill

Snapshot = Callable[[], nn.Module]  # a plain copy of the averaged model as it is now
OnEpoch = Callable[[int, int, Snapshot], None]  # (epochs done, epochs in all, the model)


def silent(done: int, total: int, snapshot: Snapshot) -> None:
    """Does nothing with an epoch."""


def finetune(
    model: nn.Module,
    part: Finetune,
    distill: Distill,
    *,
    data: Path,
    image_size: int,
    teacher: Path,
    seed: int,
    threads: int,
    device: str = "cpu",
    on_epoch: OnEpoch = silent,
    after_step: AfterStep | None = None,
    checkpoint: Path | None = None,
    extra: dict[str, Any] | None = None,
) -> nn.Module:
    """A trained copy of ``model``: the moving average of its weights after the last epoch, on the CPU.

    Args:
        model: a model of Ultralytics; blended activations become the new ones alone.
        part: epochs, learning rate and all else about the training.
        distill: whether, how and how strongly a teacher teaches too.
        data: the ``data.yaml`` of a view.
        image_size: the side of the square training images, in pixels.
        teacher: the checkpoint that teaches where ``distill`` names none.
        seed: of the order of the images and their augmentation.
        threads: CPU threads for training.
        device: ``cpu`` or a CUDA index such as ``0``.
        on_epoch: called after every epoch; what it raises ends the training. What it does with random numbers and
            threads changes nothing.
        after_step: called after every step of the optimizer, before the moving average sees the weights; may
            change the weights in place.
        checkpoint: a file that is written after every epoch but the last; if it is there already, the training that
            wrote it goes on to the same weights. None writes nothing.
        extra: further settings of the Ultralytics trainer.

    Raises:
        FloatingPointError: the loss of an epoch or the weights afterwards are not finite.
        ValueError: the teacher cannot teach this model, or a folder has no images.
    """
    count, kind, plan = _parameters(model), kind_of_model(model), lesson(distill, teacher)
    student = deepcopy(model)
    freeze_dfl(student)
    if plan and plan.feature_weight:
        torch.manual_seed(seed)  # of the projectors' first weights
        add_projectors(student, plan.teacher)

    def loss(model: nn.Module) -> Any:
        labels = label_loss(model, part.label_smoothing)
        return kind.taught_loss(model, plan, labels) if plan else labels

    with quiet_ultralytics(), working() as pause, tempfile.TemporaryDirectory() as folder:
        if isinstance(distill, UnlabeledDistill):
            place = Path(folder) / "unlabeled"
            place.mkdir()
            data = kind.unlabeled(_images(Path(distill.images)), data, place)
        settings = {**_settings(part, image_size, seed, device, extra or {}),
                    "data": str(kind.trainer_data(data)), "project": folder, "name": "train"}  # fmt: skip
        trainer = trainer_for(kind)(settings, model=student, part=part, loss=loss, after_step=after_step,
                                    checkpoint=checkpoint)  # fmt: skip
        trainer.add_callback("on_train_batch_start", lambda _: pause())
        trainer.add_callback("on_train_epoch_end", lambda t: _tell(t, on_epoch, threads))
        torch.set_num_threads(threads)  # the trainer took every core but one when it chose its device
        trainer.train()
    assert trainer.ema is not None
    trained = _plain(trainer.ema.ema)
    assert _parameters(trained) == count, "the trainer changed the shape of the model"
    if not all(bool(torch.isfinite(value).all()) for value in trained.state_dict().values()):
        raise FloatingPointError(DIVERGED)
    return trained


def _tell(trainer: Any, on_epoch: OnEpoch, threads: int) -> None:
    with kept_random_state():
        on_epoch(trainer.epoch + 1, trainer.epochs, lambda: _plain(trainer.ema.ema))
    torch.set_num_threads(threads)


def _plain(averaged: nn.Module) -> nn.Module:
    """A copy of ``averaged`` on the CPU without what only training needed."""
    trained = deepcopy(averaged).cpu().float().eval()
    trained.criterion = None  # pyright: ignore[reportArgumentType]  # modules take any attribute
    if hasattr(trained, "projectors"):
        del trained.projectors
    drop_old(trained)
    return trained


def _images(folder: Path) -> list[Path]:
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise ValueError(f"distill.images: there are no images in {folder}")
    return found


def _settings(part: Finetune, image_size: int, seed: int, device: str, extra: dict[str, Any]) -> dict[str, Any]:
    close = int(part.epochs * part.close_mosaic)
    return {
        "model": "yolov8n.yaml",  # never built: the module is set afterwards
        "imgsz": image_size,
        "epochs": part.epochs,
        "batch": part.batch,
        "nbs": part.batch,  # one step a batch: the stock 64 leaves a small data set with a few steps an epoch
        "optimizer": part.optimizer,
        "lr0": part.lr,
        "lrf": FINAL,
        "weight_decay": part.weight_decay,
        "warmup_epochs": 0.0 if part.schedule == "one_cycle" else min(3.0, part.epochs / 10),
        "warmup_bias_lr": part.lr,
        "mosaic": part.mosaic,
        "close_mosaic": max(1, close) if part.close_mosaic else 0,  # the last epochs see pictures as they are
        "device": device,
        "workers": 0,
        "amp": device != "cpu",
        "seed": seed,
        "deterministic": True,
        "val": False,
        "plots": False,
        "verbose": False,
        "patience": 0,
        "cache": "ram",
        **extra,
    }


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
