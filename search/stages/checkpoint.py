"""A training that was cut off goes on after its last whole epoch, to the same weights as if it had never stopped."""

from __future__ import annotations

import os
import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ultralytics.utils.torch_utils import unwrap_model


def save_checkpoint(trainer: Any, path: Path) -> None:
    """Writes all that decides how ``trainer`` goes on after the epoch that it has just finished, in one move.

    That is: the weights, their average, the optimizer, and every source of random numbers, of each process.
    """
    state = {
        "epoch": trainer.epoch,
        "steps": trainer.steps,
        "model": unwrap_model(trainer.model).state_dict(),
        "average": trainer.ema.ema.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "random": trainer.random_states,
    }
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        torch.save(state, temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_checkpoint(trainer: Any, path: Path) -> bool:
    """Puts ``trainer``, ready to train, back to where ``save_checkpoint`` saw it; False if there is no file.

    The file is one of this program's own: it is unpickled.
    """
    try:
        state = torch.load(path, map_location=trainer.device, weights_only=False)
    except FileNotFoundError:
        return False
    trainer.start_epoch = state["epoch"] + 1
    trainer.scheduler.last_epoch = state["epoch"]
    trainer.steps = state["steps"]
    model: Any = unwrap_model(trainer.model)
    model.load_state_dict(state["model"])
    trainer.ema.ema.load_state_dict(state["average"])
    trainer.ema.updates = state["updates"]
    trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.scaler.load_state_dict(state["scaler"])
    _restore_order(trainer)
    states = state["random"]
    _restore_random_state(states[min(process(), len(states) - 1)])  # there may be more processes than there were
    return True


def random_states() -> list[dict[str, Any]]:
    """The sources of random numbers of each process that trains; all of them call this together."""
    if not dist.is_initialized():
        return [_random_state()]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, _random_state())
    return states


def process() -> int:
    """The number of this process among those that train together, 0 if it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def kept_random_state() -> Generator[None]:
    """Gives every source of random numbers its state back at the end."""
    state = _random_state()
    try:
        yield
    finally:
        _restore_random_state(state)


def _restore_order(trainer: Any) -> None:
    """Draws the order of the epochs that are done again, from the loader's own seed, without loading an image.

    Where the mosaics end, the trainer begins a new order.
    """
    loader, done, closing = trainer.train_loader, trainer.start_epoch, trainer.epochs
    if trainer.args.close_mosaic:
        closing -= trainer.args.close_mosaic
    _pass_over(loader, min(done, closing))
    if done > closing:
        trainer._close_dataloader_mosaic()
        trainer.args.close_mosaic = 0  # it is done
        loader.reset()
        _pass_over(loader, done - closing)


def _pass_over(loader: Any, epochs: int) -> None:
    loader.iterator = loader._get_iterator()
    for _ in range(epochs * len(loader)):
        next(loader.iterator._sampler_iter)


def _random_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([value.cpu() for value in state["cuda"]])
