"""Ultralytics' trainer for a module as it is: the only trainer here."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.torch_utils import unwrap_model

from search.stages.activation import set_share
from search.stages.checkpoint import load_checkpoint, random_states, save_checkpoint
from search.stages.schedules import SCHEDULES, ema_decay
from search.stages.shared import agree, share_loss, share_statistics, shared_gradients
from search.tasks.kind import TaskKind
from spaces.recipe import Finetune

LossOf = Callable[[nn.Module], Any]  # makes the loss of a model, which is where it will be trained
AfterStep = Callable[[nn.Module, float], None]  # (the model in training, its learning rate)
DIVERGED = "training diverged: the loss or the weights are no longer finite; try a lower learning rate"


class ModuleTrainer(BaseTrainer):
    """Ultralytics' trainer for a module as it is; ``trainer_for`` joins it with the trainer of a task.

    The stock trainer rebuilds the model from its YAML file and so undoes every change of shape. Nothing is
    validated or saved here: accuracy is measured later, on the exported file. ``finetune`` explains the arguments.

    In a process group of torch it trains on this process's share of every batch, to the weights that all of them get.
    Ultralytics' own way to do that rebuilds the model in each process, and knows only GPUs.
    """

    def __init__(
        self,
        overrides: dict[str, Any],
        *,
        model: nn.Module,
        part: Finetune,
        loss: LossOf,
        after_step: AfterStep | None,
        checkpoint: Path | None = None,
    ) -> None:
        super().__init__(overrides=overrides)
        self.model, self.part, self.loss_of, self.after_step = model, part, loss, after_step
        self.steps = 0  # of the optimizer
        self.checkpoint = checkpoint
        self.processes = dist.get_world_size() if dist.is_initialized() else 1
        self.random_states: list[dict[str, Any]] = []
        self.add_callback("on_pretrain_routine_end", ModuleTrainer._prepare)
        self.add_callback("on_train_start", ModuleTrainer._start)
        self.add_callback("on_train_epoch_end", ModuleTrainer._keep_random_states)

    @property
    def whole(self) -> nn.Module:
        """The model itself, without what shares its gradients."""
        return unwrap_model(self.model)

    def _prepare(self) -> None:
        """Freezes and sets the horizon of the average, after Ultralytics has set both to its own ideas."""
        frozen = frozen_parameters(self.model, self.part)
        for name, parameter in self.model.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)  # without a gradient the optimizer leaves it as it is
        assert self.ema is not None
        decay = ema_decay(self.part.ema, len(self.train_loader))
        self.ema.decay = decay  # pyright: ignore[reportAttributeAccessIssue]  # of another lambda's type
        if self.processes > 1:
            if not agree(bool(self.amp)):  # Ultralytics tries half precision in the first process alone
                self.amp, self.scaler = False, torch.amp.GradScaler(enabled=False)
            self.model = shared_gradients(self.model, self.device)
            self.world_size = self.processes  # from here on the trainer scales the loss by it

    def _start(self) -> None:
        """Sets the loss once the model is where it will be trained, and goes on where a training was cut off."""
        model: Any = self.whole
        model.criterion = self.loss_of(model)
        if self.processes > 1:
            model.criterion = share_loss(model.criterion)
        if self.checkpoint is not None:
            load_checkpoint(self, self.checkpoint)

    def _setup_scheduler(self) -> None:
        """Sets the learning rate's factor for each epoch."""
        self.lf = SCHEDULES[self.part.schedule](self.epochs)
        assert self.optimizer is not None
        self.scheduler = LambdaLR(self.optimizer, lr_lambda=self.lf)

    def _model_train(self) -> None:
        """Keeps the statistics of frozen normalizations as they are, besides what the stock trainer does."""
        super()._model_train()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()

    def build_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Ultralytics' optimizer; after each of its steps come what the part and the caller add, then the average."""
        optimizer = super().build_optimizer(*args, **kwargs)
        optimizer.register_step_post_hook(lambda *_: self._after_step())
        return optimizer

    def _after_step(self) -> None:
        assert self.optimizer is not None
        self.steps += 1
        if self.part.l1:
            shrink(self.optimizer, self.part.l1)
        if self.part.swap_epochs:
            share = min(self.steps / (self.part.swap_epochs * len(self.train_loader)), 1.0)
            set_share(self.whole, share)
        if self.after_step is not None:
            self.after_step(self.whole, self.optimizer.param_groups[0]["lr"])
        if self.processes > 1:
            share_statistics(self.whole)

    def _keep_random_states(self) -> None:
        if self.checkpoint is not None:
            self.random_states = random_states()

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """The task's loader of this process's share of the batch."""
        return super().get_dataloader(dataset_path, batch_size // self.processes, rank, mode)

    def validate(self) -> tuple[dict[str, float], float]:
        """Skips the validation of the last epoch."""
        return {}, 0.0

    def save_model(self) -> bool:
        """Writes a checkpoint of its own; the caller takes the averaged weights from memory, unrounded."""
        if self.checkpoint is not None and self.epoch + 1 < self.epochs:
            save_checkpoint(self, self.checkpoint)
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


def trainer_for(kind: TaskKind) -> type[ModuleTrainer]:
    """The trainer of modules for a task: what it overrides comes before what Ultralytics' own does."""
    return type("TaskModuleTrainer", (ModuleTrainer, kind.trainer()), {})


def frozen_parameters(model: nn.Module, part: Finetune) -> set[str]:
    """The names of the parameters that ``part`` keeps as they are."""
    layers = tuple(f"model.{index}." for index in range(part.freeze))
    return {
        name
        for name, _ in model.named_parameters()
        if name.startswith(layers) or fnmatch(name, part.freeze_names) or ".dfl" in name
    }


def shrink(optimizer: torch.optim.Optimizer, l1: float) -> None:
    """Moves every weight that decays by its learning rate times ``l1`` towards zero, where it stops.

    The proximal step of an L1 penalty (Parikh and Boyd, Proximal Algorithms, 2014, section 6.5.2), which makes
    weights exactly zero, whatever the optimizer did to their gradients.
    """
    with torch.no_grad():
        for group in optimizer.param_groups:
            if group.get("param_group") != "weight":
                continue
            for weight in group["params"]:
                if weight.requires_grad:
                    weight.copy_(nn.functional.softshrink(weight, group["lr"] * l1))
