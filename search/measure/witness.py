"""A witness of what else uses the memory of this machine: how long a walk takes through more than a core caches alone.

Guests of one host share its last cache and its memory. What the others do there slows models down for minutes, one by a
percent and the next by six, and neither their own times nor the baseline's tell it from what they are. A walk through
4 MB in random order does: it becomes a tenth slower and more, whatever is measured beside it.

How long it takes at rest is known by what was seen. A process that is started beside other work sees no rest, so the
fastest that any process of the last day knew is kept in a file.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.measure.quiet import machine_folder

STEPS = 2**20  # values of 4 bytes each, and their order
ROOM = 0.1  # share by which a walk may be longer than at rest
REST = 0.05  # the share of all walks that were at rest, at least
LATEST = 10_000  # walks that are remembered: of some hours
ENOUGH = 10  # walks for others to believe what they show
DAY = 86_400.0  # seconds; a virtual machine may move to another host, and a laptop to its battery


class Witness:
    """Walks, and remembers how long it took; keep one for as long as the process lives.

    ``walk`` is another one, which returns its milliseconds. ``rest`` is what other processes know.
    """

    def __init__(self, walk: Callable[[], float] | None = None, rest: Rest | None = None) -> None:
        self._walk, self._rest = walk or Walk(), rest
        self._seen: deque[float] = deque(maxlen=LATEST)

    def look(self) -> float:
        """Walks now; returns the milliseconds that it took."""
        self._seen.append(self._walk())
        return self._seen[-1]

    def calm(self, looks: ArrayLike) -> NDArray[np.bool_]:
        """Which of some walks were about as fast as those at rest, by all that was seen until now."""
        rest = float(np.quantile(self._seen, REST))
        if self._rest is not None:
            rest = min(rest, self._rest.read())
            if len(self._seen) >= ENOUGH:
                self._rest.offer(float(np.quantile(self._seen, REST, method="higher")))  # not one lucky walk
        return np.asarray(looks) <= (1 + ROOM) * rest


class Rest:
    """The milliseconds of a walk at rest, in a file of this machine.

    It holds for some ``cores``, which may be of several kinds, for one start of the machine and one version of numpy,
    which does the walking. Where there can be no file, nothing is known.
    """

    def __init__(self, cores: tuple[int, ...] | None) -> None:
        same = f"{_boot()} {cores} {STEPS} {np.__version__}"
        self._name = f"rest-{hashlib.sha256(same.encode()).hexdigest()[:16]}"

    def read(self) -> float:
        """Infinity where it is not known, or was not for a day."""
        with suppress(OSError, ValueError):
            file = machine_folder() / self._name
            if time.time() - file.stat().st_mtime < DAY:
                return float(file.read_text(encoding="ascii"))
        return math.inf

    def offer(self, milliseconds: float) -> None:
        """Keeps it, if it is faster than what is known; of two processes at once, one wins."""
        if milliseconds >= self.read():
            return
        with suppress(OSError):
            file = machine_folder() / self._name
            temporary = file.with_name(f"{self._name}.{os.getpid()}.tmp")
            temporary.write_text(repr(milliseconds), encoding="ascii")
            temporary.replace(file)


def _boot() -> str:
    """Names this start of the machine; empty where the system does not."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


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
