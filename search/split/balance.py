"""Which of the places to cut at: the slowest stage as fast as can be, and then few bytes handed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
SLACK = 0.02  # by which the slowest stage may be slower, to hand on less


def balance(
    before: ArrayLike, whole: float, sending: ArrayLike, nbytes: ArrayLike, stages: int, slack: float = SLACK
) -> tuple[int, ...]:
    """The places that cut a chain into ``stages``.

    A stage costs what is computed in it, and the handing over at both of its ends. Of all choices, first the cost of
    the dearest stage is the least; then, among choices within ``slack`` of that, the bytes are the fewest. Both by
    dynamic programming over the places, O(stages × places²).

    Args:
        before: shape (n,), what is computed before each place, not decreasing.
        whole: what is computed in all, in the same unit.
        sending: shape (n,), what handing over costs on each side of a place, in the same unit.
        nbytes: shape (n,), bytes that cross each place.
        stages: at most n + 1.
        slack: a share.

    Returns:
        ``stages`` − 1 indices of places, rising.

    Raises:
        ValueError: more stages than the places make.
    """
    ends = np.concatenate([[0.0], np.asarray(before, dtype=np.float64), [whole]])
    hand = np.concatenate([[0.0], np.asarray(sending, dtype=np.float64), [0.0]])
    size = np.concatenate([[0.0], np.asarray(nbytes, dtype=np.float64), [0.0]])
    if not 1 <= stages < len(ends):
        raise ValueError(f"{len(ends) - 2} places make 1 to {len(ends) - 1} stages, not {stages}")
    # cost[i, j] of the stage from place i to place j; there is none that ends before it begins.
    cost = ends[None, :] - ends[:, None] + hand[None, :] + hand[:, None]
    cost[np.tri(len(ends), dtype=bool)] = np.inf
    bottleneck, _ = _cheapest(cost, np.maximum, stages)
    allowed = np.where(cost <= bottleneck * (1 + slack), size[None, :], np.inf)
    _, path = _cheapest(allowed, np.add, stages)
    return tuple(index - 1 for index in path)


def _cheapest(step: Floats, joined: Callable[[Floats, Floats], Floats], stages: int) -> tuple[float, Sequence[int]]:
    """The cheapest way of ``stages`` steps from the first place to the last, and the places between."""
    best, came = step[0], []
    for _ in range(stages - 1):
        through = joined(best[:, None], step)
        came.append(through.argmin(axis=0))
        best = through.min(axis=0)
    path = [len(step) - 1]
    for origin in reversed(came):
        path.append(int(origin[path[-1]]))
    return float(best[-1]), path[:0:-1]
