"""Trains a model, pruned or not, on Ultralytics' own trainer, with or without a teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides a training but its model; ``finetune`` explains the fields."""

    part: Finetune
    distill: Distill
    data: Path
    image_size: int
    teacher: Path
    seed: int
    threads: int
    device: str
    after_step: AfterStep | None
    checkpoint: Path | None
    extra: dict[str, Any]


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
    processes: int = 1,
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
        processes: how many train together on this machine, each on its share of every batch, of the threads and, on
            CUDA, on a GPU of its own from the first on; the largest number up to this one that divides the batch.

    Raises:
        FloatingPointError: the loss of an epoch or the weights afterwards are not finite.
        ValueError: the teacher cannot teach this model, or a folder has no images.
    """
    plan = Plan(
        part=part,
        distill=distill,
        data=data,
        image_size=image_size,
        teacher=teacher,
        seed=seed,
        threads=threads,
        device=device,
        after_step=after_step,
        checkpoint=checkpoint,
        extra=extra or {},
    )
    count = _parameters(model)
    if (shares := divided(part.batch, processes)) > 1:
        from search.stages.together import train_together

        averaged = train_together(model, plan, shares, on_epoch)
    else:
        averaged = train_here(model, plan, on_epoch)
    trained = plain(averaged)
    assert _parameters(trained) == count, "the trainer changed the shape of the model"
    if not all(bool(torch.isfinite(value).all()) for value in trained.state_dict().values()):
        raise FloatingPointError(DIVERGED)
    return trained


def divided(batch: int, processes: int) -> int:
    """How many of ``processes`` train: as many as give each an equal share of every batch."""
    return next(count for count in range(min(batch, processes), 0, -1) if batch % count == 0)


def train_here(model: nn.Module, plan: Plan, on_epoch: OnEpoch) -> nn.Module:
    """The average of a copy of ``model`` that was trained in this process, on its share if there are others."""
    part, kind, teaching = plan.part, kind_of_model(model), lesson(plan.distill, plan.teacher)
    student = deepcopy(model)
    freeze_dfl(student)
    if teaching and teaching.feature_weight:
        torch.manual_seed(plan.seed)  # of the projectors' first weights
        add_projectors(student, teaching.teacher)

    def loss(model: nn.Module) -> Any:
        labels = label_loss(model, part.label_smoothing)
        return kind.taught_loss(model, teaching, labels) if teaching else labels

    with quiet_ultralytics(), _pausing() as pause, tempfile.TemporaryDirectory() as folder:
        data = plan.data
        if isinstance(plan.distill, UnlabeledDistill):
            place = Path(folder) / "unlabeled"
            place.mkdir()
            data = kind.unlabeled(_images(Path(plan.distill.images)), data, place)
        settings = {**_settings(plan), "data": str(kind.trainer_data(data)), "project": folder, "name": "train"}
        trainer = trainer_for(kind)(settings, model=student, part=part, loss=loss, after_step=plan.after_step,
                                    checkpoint=plan.checkpoint)  # fmt: skip
        trainer.add_callback("on_train_batch_start", lambda _: pause())
        trainer.add_callback("on_train_epoch_end", lambda t: _tell(t, on_epoch, plan.threads))
        torch.set_num_threads(plan.threads)  # the trainer took every core but one when it chose its device
        trainer.train()
    assert trainer.ema is not None
    return trainer.ema.ema


@contextmanager
def _pausing() -> Generator[Callable[[], object]]:
    """Yields what waits between two batches while somebody measures.

    Of processes that train together the first one waits for that, and the others for it: if each had its own turn,
    one could hold the machine while it waits for another that has given it up.
    """
    if not dist.is_initialized():
        with working() as pause:
            yield pause
        return
    with working() if dist.get_rank() == 0 else nullcontext(lambda: None) as pause:

        def pause_together() -> None:
            pause()
            dist.barrier()

        yield pause_together


def _tell(trainer: Any, on_epoch: OnEpoch, threads: int) -> None:
    with kept_random_state():
        on_epoch(trainer.epoch + 1, trainer.epochs, lambda: plain(trainer.ema.ema))
    torch.set_num_threads(threads)


def plain(averaged: nn.Module) -> nn.Module:
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


def _settings(plan: Plan) -> dict[str, Any]:
    part = plan.part
    close = int(part.epochs * part.close_mosaic)
    return {
        "model": "yolov8n.yaml",  # never built: the module is set afterwards
        "imgsz": plan.image_size,
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
        "device": plan.device,
        "workers": 0,
        "amp": plan.device != "cpu",
        "seed": plan.seed,
        "deterministic": True,
        "val": False,
        "plots": False,
        "verbose": False,
        "patience": 0,
        "cache": "ram",
        **plan.extra,
    }


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
