"""Trains a model, pruned or not, on Ultralytics' own trainer, with or without the baseline as its teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.distill_model import DistillationModel

from search.stages.prune import freeze_dfl
from search.ultra import quiet_ultralytics
from spaces.recipe import Distill, FeatureDistill, Finetune, NoDistill, Part

OnEpoch = Callable[[int, int], None]  # (epochs done, epochs in all)
DIVERGED = "training diverged: the loss or the weights are no longer finite; try a lower learning rate"
AfterStep = Callable[[nn.Module, float], None]  # (the model in training, the learning rate)


class ModuleTrainer(DetectionTrainer):
    """Ultralytics' trainer for a module as it is.

    The stock trainer rebuilds the model from its YAML file and so undoes every change of shape. Nothing is
    validated or saved here: accuracy is measured later, on the exported file.
    """

    def validate(self) -> tuple[dict[str, float], float]:
        """Skips the validation of the last epoch."""
        return {}, 0.0

    def save_model(self) -> bool:
        """Skips the checkpoint: the caller takes the averaged weights from memory, unrounded."""
        return False

    def save_metrics(self, metrics: dict[str, float]) -> None:
        """Skips the CSV file."""

    def final_eval(self) -> None:
        """Skips the evaluation of the best checkpoint."""

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Ends a training that diverged, since there is no checkpoint to go back to."""
        if self.loss is not None and not self.loss.isfinite():
            raise FloatingPointError(DIVERGED)
        return False


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
    on_epoch: OnEpoch = lambda done, total: None,
    after_step: AfterStep | None = None,
    extra: dict[str, Any] | None = None,
) -> nn.Module:
    """A trained copy of ``model``: the moving average of its weights after the last epoch, on the CPU.

    Args:
        model: a detection model of Ultralytics.
        part: epochs, learning rate, schedule, weight decay and batch size.
        distill: whether and how strongly the checkpoint at ``teacher`` teaches too.
        data: an Ultralytics ``data.yaml`` with absolute paths.
        image_size: the side of the square training images, in pixels.
        seed: of the order of the images and their augmentation.
        threads: CPU threads for training.
        device: ``cpu`` or a CUDA index such as ``0``.
        on_epoch: called after every epoch; what it raises ends the training.
        after_step: called after every step of the optimizer, before the moving average sees the weights; may
            change the weights in place.
        extra: further settings of the Ultralytics trainer.

    Raises:
        FloatingPointError: the loss of an epoch or the weights afterwards are not finite.
    """
    count = _parameters(model)
    with quiet_ultralytics(), tempfile.TemporaryDirectory() as folder:
        trainer = ModuleTrainer(overrides={**_settings(part, image_size, seed, device, extra or {}),
                                           **TEACHINGS[type(distill)](distill, teacher), "data": str(data),
                                           "project": folder, "name": "train"})  # fmt: skip
        trainer.model = deepcopy(model)
        freeze_dfl(trainer.model)
        trainer.add_callback("on_train_epoch_end", lambda t: on_epoch(t.epoch + 1, t.epochs))
        if after_step is not None:
            trainer.add_callback("on_train_start", lambda t: _call_after_steps(t, after_step))
        torch.set_num_threads(threads)  # the trainer took every core but one when it chose its device
        trainer.train()
    assert trainer.ema is not None
    trained = trainer.ema.ema
    if isinstance(trained, DistillationModel):
        trained._remove_feature_hooks()
    trained = _student(trained)
    trained = deepcopy(trained).cpu().float().eval()
    trained.criterion = None  # pyright: ignore[reportArgumentType]  # modules take any attribute
    assert _parameters(trained) == count, "the trainer changed the shape of the model"
    if not all(bool(torch.isfinite(value).all()) for value in trained.state_dict().values()):
        raise FloatingPointError(DIVERGED)
    return trained


def _settings(part: Finetune, image_size: int, seed: int, device: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": "yolov8n.yaml",  # never built: the module is set afterwards
        "imgsz": image_size,
        "epochs": part.epochs,
        "batch": part.batch,
        "nbs": part.batch,  # one step a batch: the stock 64 leaves a small data set with a few steps an epoch
        "optimizer": "AdamW",
        "lr0": part.lr,
        "lrf": 0.01,
        "cos_lr": part.schedule == "cosine",
        "weight_decay": part.weight_decay,
        "warmup_epochs": min(3.0, part.epochs / 10),
        "warmup_bias_lr": part.lr,
        "close_mosaic": max(1, part.epochs // 4),  # the last epochs see pictures as they are
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


def _call_after_steps(trainer: ModuleTrainer, after_step: AfterStep) -> None:
    def hook(optimizer: torch.optim.Optimizer, *_: object) -> None:
        assert isinstance(trainer.model, nn.Module)
        after_step(_student(trainer.model), optimizer.param_groups[0]["lr"])

    assert trainer.optimizer is not None
    trainer.optimizer.register_step_post_hook(hook)


def _student(model: nn.Module) -> nn.Module:
    """The model itself, out of what Ultralytics wraps it in to be taught."""
    return model.student_model if isinstance(model, DistillationModel) else model


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# What each way to distill adds to the trainer's settings. A new way is a type, a function and a line here.
TEACHINGS: dict[type[Part], Callable[[Any, Path], dict[str, Any]]] = {
    NoDistill: lambda part, teacher: {},
    FeatureDistill: lambda part, teacher: {"distill_model": str(teacher), "dis": part.weight},
}
