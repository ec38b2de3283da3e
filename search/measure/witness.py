"""A witness of what else uses the memory of this machine: how long a walk takes through more than a core caches alone.

Guests of one host share its last cache and its memory. What the others do there slows models down for minutes, one by a
percent and the next by six, and neither their own times nor the baseline's tell it from what they are. A walk through
4 MB in random order does: it becomes a tenth slower and more, whatever is measured beside it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

STEPS = 2**20  # values of 4 bytes each, and their order
ROOM = 0.1  # share by which a walk may be longer than at rest
REST = 0.05  # the share of all walks that were at rest, at least
LATEST = 10_000  # walks that are remembered: of some hours


class Witness:
    """Walks, and remembers how long it took; keep one for as long as the process lives.

    ``walk`` is another one, which returns its milliseconds.
    """

    def __init__(self, walk: Callable[[], float] | None = None) -> None:
        self._walk = walk or Walk()
        self._seen: deque[float] = deque(maxlen=LATEST)

    def look(self) -> float:
        """Walks now; returns the milliseconds that it took."""
        self._seen.append(self._walk())
        return self._seen[-1]

    def calm(self, looks: ArrayLike) -> NDArray[np.bool_]:
        """Which of some walks were about as fast as those at rest, by all that was seen until now."""
        return np.asarray(looks) <= (1 + ROOM) * np.quantile(self._seen, REST)


class Walk:
    """Gathers an array in random order; gives the milliseconds of the calling thread's CPU time, the better of two."""

    def __init__(self) -> None:
        self._values = np.ones(STEPS, dtype=np.int32)
        self._order = np.random.default_rng(0).permutation(STEPS).astype(np.int32)

    def __call__(self) -> float:
        """Walks twice."""
        times: list[int] = []
        for _ in range(2):
            start = time.thread_time_ns()
            self._values.take(self._order)
            times.append(time.thread_time_ns() - start)
        return min(times) / 1e6
