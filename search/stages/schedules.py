"""What changes from step to step of a training: the learning rate and the horizon of the moving average."""

from __future__ import annotations

import math
from collections.abc import Callable

FINAL = 0.01  # of the peak learning rate, after the last epoch
RISE = 0.3  # of the epochs, and
START = 0.04  # of the peak, in a one-cycle schedule: the defaults of PyTorch's OneCycleLR

Factor = Callable[[float], float]  # (epochs done) -> share of the peak learning rate


def linear(epochs: int) -> Factor:
    """From 1 to ``FINAL`` in a line."""
    return lambda done: _between(1, FINAL, done / epochs)


def cosine(epochs: int) -> Factor:
    """From 1 to ``FINAL`` along half a cosine (SGDR, Loshchilov and Hutter, arXiv:1608.03983, without restarts)."""
    return lambda done: _eased(1, FINAL, done / epochs)


def one_cycle(epochs: int) -> Factor:
    """From ``START`` up to 1 and down to ``FINAL``, along half a cosine each (Smith, arXiv:1708.07120)."""
    rise = RISE * epochs

    def factor(done: float) -> float:
        if done < rise:
            return _eased(START, 1, done / rise)
        return _eased(1, FINAL, (done - rise) / (epochs - rise))

    return factor


def ema_decay(name: str, epoch_steps: int) -> Callable[[int], float]:
    """The share of the moving average that stays at each update, by the number of the update, from 1.

    ``ultralytics`` is its own: a horizon of 10,000 steps, reached over some 2,000 of them. ``epoch`` has a horizon of
    ``epoch_steps`` steps, and averages evenly before it has seen so many. ``none`` keeps nothing but the last weights.
    """
    decays: dict[str, Callable[[int], float]] = {
        "ultralytics": lambda update: 0.9999 * (1 - math.exp(-update / 2000)),
        "epoch": lambda update: min(1 - 1 / epoch_steps, (update - 1) / update),
        "none": lambda update: 0.0,
    }
    return decays[name]


def _between(start: float, end: float, share: float) -> float:
    return start + (end - start) * min(share, 1.0)


def _eased(start: float, end: float, share: float) -> float:
    return _between(start, end, (1 - math.cos(math.pi * min(share, 1.0))) / 2)


SCHEDULES: dict[str, Callable[[int], Factor]] = {"linear": linear, "cosine": cosine, "one_cycle": one_cycle}
