"""How accuracy rises in training: a family of curves fitted to recorded ones, and the noise around them.

At epoch e of E, relative to the end: what has been learned by then, times what a learning rate that has not yet
fallen costs,

    r(e, E) = (1 - exp(-(e / tau) ** power)) * (1 - drag * (1 - e / E) ** fall) / (the same at e = E)

``tau`` differs from training to training (log-normally, by no rule that the recipe gives away), the other three are
shared. Noise around the curve is normal and dies out as the learning rate falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

Floats = NDArray[np.float64]
Points = Sequence[tuple[int, float]]
PRIOR = 1.0  # the spread of log tau that the fit believes in before it sees curves; keeps single curves in bounds


@dataclass(frozen=True, kw_only=True)
class CurveFamily:
    """A fitted family. ``spread`` is the deviation of log tau, ``noise`` that of a value at the start, relative."""

    tau: float
    power: float
    drag: float
    fall: float
    spread: float
    noise: float
    curves: int  # how many it was fitted to
    error: float  # root mean square of the fit, relative to the final accuracy

    def relative(self, epoch: ArrayLike, total: int, *, tau: float) -> Floats:
        """Accuracy at ``epoch`` of ``total`` relative to the end, without noise; epochs at least 0."""
        return _relative(np.asarray(epoch, dtype=np.float64), total, tau, self.power, self.drag, self.fall)

    def deviation(self, epoch: float, total: int) -> float:
        """The standard deviation of the noise at an epoch, relative to the final accuracy."""
        return self.noise * (1 - epoch / total) ** 0.5


def fit_curves(curves: Sequence[Points]) -> CurveFamily:
    """The family that fits recorded curves best, each relative to its own last value.

    Args:
        curves: pairs of epoch and accuracy; the last pair is the training's end, at an accuracy above 0.
    """
    shapes = [_shape(points) for points in curves]
    start = np.array([np.log(5.0), 0.0, 0.0, 0.0, *np.zeros(len(shapes))])

    def residuals(values: Floats) -> Floats:
        tau, power, drag, fall = _parameters(values)
        own = [
            relative - _relative(epochs, total, tau * np.exp(shift), power, drag, fall)
            for (epochs, relative, total), shift in zip(shapes, values[4:], strict=True)
        ]
        return np.concatenate([*own, 0.1 * values[4:] / PRIOR])

    found = least_squares(residuals, start)
    tau, power, drag, fall = _parameters(found.x)
    left = residuals(found.x)[: sum(len(epochs) for epochs, _, _ in shapes)]
    waning = np.concatenate([(1 - epochs / total) ** 0.5 for epochs, _, total in shapes])
    noisy = waning > 0
    return CurveFamily(
        tau=tau,
        power=power,
        drag=drag,
        fall=fall,
        spread=float(found.x[4:].std()),
        noise=float(np.sqrt(np.mean((left[noisy] / waning[noisy]) ** 2))),
        curves=len(curves),
        error=float(np.sqrt(np.mean(left**2))),
    )


def _shape(points: Points) -> tuple[Floats, Floats, int]:
    """Epochs, accuracies relative to the last, and the number of epochs; epoch 0 is before any training."""
    trained = [(epoch, accuracy) for epoch, accuracy in points if epoch > 0]
    epochs = np.array([epoch for epoch, _ in trained], dtype=np.float64)
    accuracy = np.array([accuracy for _, accuracy in trained], dtype=np.float64)
    return epochs, accuracy / accuracy[-1], int(epochs[-1])


def _parameters(values: Floats) -> tuple[float, float, float, float]:
    """Unbounded numbers as tau > 0, power and fall in (0.3, 3), drag in (0, 0.9)."""
    unit = 1 / (1 + np.exp(-values[1:4]))
    return float(np.exp(values[0])), float(0.3 + 2.7 * unit[0]), float(0.9 * unit[1]), float(0.3 + 2.7 * unit[2])


def _relative(epochs: Floats, total: int, tau: float, power: float, drag: float, fall: float) -> Floats:
    learned = 1 - np.exp(-((epochs / tau) ** power))
    end = 1 - np.exp(-((total / tau) ** power))
    return learned / end * (1 - drag * (1 - epochs / total) ** fall)
