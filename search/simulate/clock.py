"""Simulated time: what happens is taken in order of its time, and of its arrival where times are equal."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Clock:
    """An event queue; ``now`` is the time of the last event, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Has ``action`` called ``seconds`` from now.

        Raises:
            ValueError: the time is before now.
        """
        if not seconds >= 0:
            raise ValueError(f"nothing can happen {seconds} seconds from now")
        heapq.heappush(self._queue, (self.now + seconds, self._count, action))
        self._count += 1

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Takes events until there are none, or ``until`` holds after one."""
        while self._queue:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            if until():
                return
