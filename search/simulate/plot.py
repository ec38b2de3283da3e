"""The plot of a comparison: hypervolume against epochs of training and against simulated time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.simulate.compare import SeedResult
from search.simulate.replay import Trajectory

Floats = NDArray[np.float64]
SHOWN = ("random", "optuna", "random + leaves", "optuna + leaves", "ours")
POINTS = 200


def plot(results: Sequence[SeedResult], path: Path) -> None:
    """Writes an SVG or PNG: medians over seeds, with the middle half of them shaded.

    Hypervolume is relative to what random search ends with on the same seed. An engine's replay ends when it has
    reached both targets; its line stays at that height.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, what, label in ((axes[0], "epochs", "epochs of training"), (axes[1], "seconds", "simulated hours")):
        ends = [getattr(result.outcomes["random"].trajectory.steps[-1], what) for result in results]
        grid = np.linspace(0, float(np.median(ends)), POINTS)
        for name in [name for name in SHOWN if name in results[0].outcomes]:
            heights = np.array([_relative(result, name, what, grid) for result in results])
            low, middle, high = np.quantile(heights, [0.25, 0.5, 0.75], axis=0)
            x = grid / 3600 if what == "seconds" else grid
            (line,) = axis.plot(x, middle, label=name)
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set(xlabel=label, ylim=(0.8, None))
    axes[0].set_ylabel("hypervolume / what random search ends with")
    axes[1].legend(loc="lower right", fontsize=8)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    figure.savefig(temporary)
    plt.close(figure)
    temporary.replace(path)


def height(trajectory: Trajectory, what: str, grid: Floats) -> Floats:
    """The hypervolume at each of ``grid`` epochs or seconds: that of the last trial that had ended by then."""
    at = np.array([getattr(step, what) for step in trajectory.steps])
    heights = np.array([0.0, *(step.hypervolume for step in trajectory.steps)])
    return heights[np.searchsorted(at, grid, side="right")]


def _relative(result: SeedResult, name: str, what: str, grid: Floats) -> Floats:
    return height(result.outcomes[name].trajectory, what, grid) / result.targets["random"]
