"""The hypervolume that a recipe can be expected to add: exact in what is known before training, and in the front.

Expected hypervolume improvement (Emmerich et al., "Single- and multiobjective evolutionary optimization assisted by
Gaussian random field metamodels", 2006) with one unknown objective. Latency and size are given, so the volume above
a front is a sum over the cells that their values cut, and only accuracy has to be averaged over.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def expected_gain(
    front_accuracy: ArrayLike,
    front_known: ArrayLike,
    *,
    accuracy: ArrayLike,
    known: ArrayLike,
    corner: ArrayLike,
    floor: float = 0.0,
) -> float:
    """The expected growth of the hypervolume when every leaf of one trunk is added to a front, in its units.

    The leaves of a trunk come from the same weights, so they are good or bad together: a column of ``accuracy`` is one
    outcome of all of them.

    Args:
        front_accuracy: shape (f,), higher is better.
        front_known: shape (f, k), the front's latency and size (k is 1 or 2), lower is better.
        accuracy: shape (n, q), equally likely outcomes of each leaf's accuracy.
        known: shape (n, k), each leaf's latency and size.
        corner: shape (k,), the worst latency and size that count; the worst accuracy that counts is 0.
        floor: accuracies below it count for nothing, since they break a limit.
    """
    corner = np.asarray(corner, dtype=np.float64)
    leaves = np.asarray(known, dtype=np.float64).reshape(-1, len(corner))
    inside = np.flatnonzero(np.all(leaves < corner, axis=1))
    if not len(inside):
        return 0.0
    leaves, outcomes = leaves[inside], np.asarray(accuracy, dtype=np.float64)[inside]
    front = np.asarray(front_known, dtype=np.float64).reshape(-1, len(corner))
    heights = np.asarray(front_accuracy, dtype=np.float64)
    lows, volumes = _cells(np.concatenate([front, leaves]), leaves.min(axis=0), corner)
    reached = _reached(front, heights, lows)
    outcomes = np.where(outcomes >= floor, outcomes, 0.0)
    there = np.asarray(np.all(leaves[None] <= lows[:, None], axis=2))  # (cells, leaves)
    best = np.where(there[:, :, None], outcomes[None], 0.0).max(axis=1)  # (cells, outcomes)
    return float(volumes @ np.maximum(best - reached[:, None], 0.0).mean(axis=1))


def _reached(front: Floats, heights: Floats, lows: Floats) -> Floats:
    """The best accuracy that the front has at the lower end of each cell, shape (cells,); 0 where it has none."""
    if front.shape[1] == 1:  # by sorting: a front of one known objective may have hundreds of members
        order = np.argsort(front[:, 0])
        best = np.maximum.accumulate(np.concatenate([[0.0], heights[order]]))
        return best[np.searchsorted(front[order, 0], lows[:, 0], side="right")]
    there: Floats = np.where(np.all(front[None] <= lows[:, None], axis=2), heights, 0.0).max(axis=1, initial=0.0)
    return there


def _cells(points: Floats, start: Floats, corner: Floats) -> tuple[Floats, Floats]:
    """The cells between ``start`` and ``corner`` that the points cut: lower ends, shape (cells, k), and volumes."""
    axes = []
    for axis in range(len(corner)):
        values = points[:, axis]
        cuts = np.unique(values[(values >= start[axis]) & (values < corner[axis])])
        axes.append((cuts, np.diff(np.append(cuts, corner[axis]))))
    lows = np.stack([grid.ravel() for grid in np.meshgrid(*(cuts for cuts, _ in axes), indexing="ij")], axis=1)
    volumes = axes[0][1]
    for _, widths in axes[1:]:
        volumes = np.outer(volumes, widths).ravel()
    return lows, volumes
