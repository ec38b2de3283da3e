"""Two things timed in turn until their ratio is known well enough.

A pair is one run of each, in random order, so that what slows both down cancels in the pair's ratio. Both are loaded
anew for every session of a few pairs (search/measure/ratio.py says why). Timing ends when the interval of the ratio is
narrow enough. The stopping rule looks at the width of the interval and never at the ratio itself, so it favours no
result. Sessions in which somebody else used the memory do not count, where there are others
(search/measure/witness.py). A session of a slow model has fewer pairs, so that its time is enough for several.

Each run finds the other model's weights in the caches, so both are timed as behind a picture that was just decoded and
scaled, and not as in a loop of their own: there a small model is up to a quarter faster on a quiet machine, but not on
a busy one (docs/adr/015-cold-caches.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from search.measure.ratio import Floats, paired_ratio
from search.measure.witness import Witness

ClockName = Literal["thread-cpu", "process-cpu", "wall"]
Run = Callable[[], object]
Opener = Callable[[], Run]  # loads a model and returns what runs it once
Pair = tuple[Run, Run]  # the candidate's run and the baseline's

LEAST = 10  # sessions before the interval is believed, and a slow model's are shorter so that it has as many
FEWEST = 3  # sessions that tell how far sessions differ
PAIRS = 10  # of a session
FEWEST_PAIRS = 2
WINDOW, STILL = 5, 0.05  # times stand still when medians of so many runs change by less than this share
LONGEST_WARMUP = 60  # pairs of the first session
REWARM = 5  # pairs of the others, whose memory is new: until then small models are some percent slower or faster
CALM = 0.25  # share of the sessions that must be calm for the others not to count; else waiting would take too long


class Clock(Protocol):
    """Nanoseconds since some moment: of the wall, and of computing, by the kind of CPU time that ``name`` says."""

    name: ClockName

    def wall(self) -> int:
        """Of the wall."""
        ...

    def cpu(self) -> int:
        """In which this thread, or all of this process, computed."""
        ...


class ThreadClock:
    """The clocks of this machine; computing is that of the calling thread."""

    name: ClockName = "thread-cpu"
    wall = staticmethod(time.perf_counter_ns)
    cpu = staticmethod(time.thread_time_ns)


class ProcessClock(ThreadClock):
    """Computing is that of all threads of this process, for several sessions at once."""

    name: ClockName = "process-cpu"
    cpu = staticmethod(time.process_time_ns)


class WallClock(ThreadClock):
    """For what computes on a device: the thread that calls only waits for it, so ratios are of the wall clock."""

    name: ClockName = "wall"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to time: at most ``runs`` pairs and ``seconds``, and no longer than it takes to know the ratio.

    It is known when half the width of its 95 % interval is ``precision`` of it (0.01: one percent).
    """

    runs: int = 200
    precision: float = 0.01
    seconds: float = 60.0

    @property
    def pairs(self) -> int:
        """Pairs of a session: fewer where there are few runs, so that there are sessions enough."""
        return min(PAIRS, max(FEWEST_PAIRS, self.runs // LEAST))


USUAL = Effort()


@dataclass(frozen=True, kw_only=True)
class Series:
    """Times in ms, candidate and baseline beside one another: shape (pairs, 2), by both clocks.

    ``session`` has the number of each pair's session, ``loading`` the wall time that it took to load the two models
    in each session, in ms: shape (sessions, 2), and ``memory`` what the witness saw before it: shape (sessions,).
    ``disturbed`` says that it saw others at work in so many sessions that all count.
    """

    wall: Floats
    cpu: Floats
    session: NDArray[np.int64]
    loading: Floats
    memory: Floats
    warmup: int  # pairs that ran before the first
    clock: ClockName  # the one that ratios are taken by
    disturbed: bool = False

    @property
    def chosen(self) -> Floats:
        """The times that count for ratios."""
        return self.wall if self.clock == "wall" else self.cpu

    def ratio(self) -> tuple[float, float, float]:
        """The ratio, and its 95 % interval."""
        return paired_ratio(self.chosen[:, 0], self.chosen[:, 1], self.session)

    def undisturbed(self, witness: Witness, most: int) -> Series:
        """The pairs of the calm sessions alone; the latest ``most`` of all sessions, if too few are calm."""
        calm = witness.calm(self.memory)
        if calm.sum() < min(len(calm), max(FEWEST, CALM * len(calm))):
            return replace(self._only(np.arange(len(self.wall)) >= len(self.wall) - most), disturbed=True)
        return self._only(calm[self.session])

    def _only(self, rows: NDArray[np.bool_]) -> Series:
        kept, session = np.unique(self.session[rows], return_inverse=True)
        times = {"wall": self.wall[rows], "cpu": self.cpu[rows], "session": session}
        return replace(self, loading=self.loading[kept], memory=self.memory[kept], **times)

    def half_width(self) -> float:
        """Half the width of the ratio's interval, as a share of the ratio."""
        ratio, low, high = self.ratio()
        return (high - low) / 2 / ratio


@dataclass
class _Log:
    """What was timed so far."""

    times: list[tuple[tuple[float, float], tuple[float, float]]]
    sessions: list[int]
    loading: list[tuple[float, float]]
    memory: list[float]
    warmup: int = 0

    def series(self, threads: int, own: ClockName) -> Series:
        both = np.array(self.times)  # (pairs, columns, clocks)
        return Series(
            wall=both[:, :, 0],
            cpu=both[:, :, 1],
            session=np.array(self.sessions),
            loading=np.array(self.loading),
            memory=np.array(self.memory),
            warmup=self.warmup,
            clock=_choose_clock(threads, own, both),
        )


def time_pairs(
    openers: tuple[Opener, Opener],
    effort: Effort,
    *,
    threads: int,
    witness: Witness,
    seed: int = 0,
    clock: Clock | None = None,
) -> Series:
    """Times the candidate and the baseline in turn until ``effort`` is spent or the ratio is known.

    Args:
        openers: load the two; called once a session.
        effort: when to stop; pairs that do not count are not of its number.
        threads: on how many the runs compute; with more than one, ratios are of the wall clock.
        witness: says which sessions count.
        seed: of the order within pairs.
        clock: ``ThreadClock``, if not given.
    """
    own: Clock = clock or ThreadClock()
    share = round(effort.seconds / LEAST * 1e9)  # of a session, from when both are loaded
    deadline = own.wall() + LEAST * share
    rng = np.random.default_rng(seed)
    log, counted = _Log([], [], [], []), 0
    while True:
        log.memory.append(witness.look())
        pair = _open(openers, log, own)
        end = own.wall() + share
        if len(log.loading) == 1:
            log.warmup = warm_up(pair, own, end)
        else:
            _warm_again(pair, own, end - share // 2)
        count = min(effort.pairs, effort.runs - counted)
        for number, first in enumerate(rng.permutation(np.arange(count) % 2), 1):
            log.times.append(_time_pair(pair, int(first), own))
            log.sessions.append(len(log.loading) - 1)
            if number >= FEWEST_PAIRS and own.wall() >= min(end, deadline):
                break
        series = log.series(threads, own.name).undisturbed(witness, effort.runs)
        counted = len(series.wall)
        if counted >= effort.runs or own.wall() >= deadline:
            return series
        if len(series.loading) >= LEAST and series.half_width() <= effort.precision:
            return series


def _open(openers: tuple[Opener, Opener], log: _Log, clock: Clock) -> Pair:
    """Loads both, the one or the other first in turn, and notes how long each took."""
    runs: list[Run] = [_nothing, _nothing]
    loading = [0.0, 0.0]
    first = len(log.loading) % 2
    for column in (first, 1 - first):
        start = clock.wall()
        runs[column] = openers[column]()
        loading[column] = (clock.wall() - start) / 1e6
    log.loading.append((loading[0], loading[1]))
    return runs[0], runs[1]


def _nothing() -> None:
    """Stands for a run that is not loaded yet."""


def warm_up(pair: Pair, clock: Clock, deadline: int) -> int:
    """Runs both in turn until their wall times stand still; returns how often. First runs allocate and fill caches."""
    walls: list[tuple[float, float]] = []
    while len(walls) < LONGEST_WARMUP and (not walls or clock.wall() < deadline):
        (ours, _), (theirs, _) = _time_pair(pair, 0, clock)
        walls.append((ours, theirs))
        if len(walls) >= 2 * WINDOW:
            before, now = np.median(walls[-2 * WINDOW : -WINDOW], axis=0), np.median(walls[-WINDOW:], axis=0)
            if np.all(np.abs(now / before - 1) < STILL):
                break
    return len(walls)


def _warm_again(pair: Pair, clock: Clock, deadline: int) -> None:
    for _ in range(REWARM):
        _time_pair(pair, 0, clock)
        if clock.wall() >= deadline:
            return


def _time_pair(pair: Pair, first: int, clock: Clock) -> tuple[tuple[float, float], tuple[float, float]]:
    """Runs both, the one in column ``first`` before the other; ms of candidate and baseline, each (wall, CPU)."""
    times = [(0.0, 0.0), (0.0, 0.0)]
    for column in (first, 1 - first):
        wall, cpu = clock.wall(), clock.cpu()
        pair[column]()
        cpu_end, wall_end = clock.cpu(), clock.wall()
        times[column] = ((wall_end - wall) / 1e6, (cpu_end - cpu) / 1e6)
    return times[0], times[1]


def _choose_clock(threads: int, own: ClockName, times: Floats) -> ClockName:
    """The loop's own clock for one thread, unless the ticks of a CPU's are too coarse for these runs."""
    coarse = time.get_clock_info("thread_time").resolution > 1e-5 or bool((times[:, :, 1] <= 0).any())
    return "wall" if threads > 1 or coarse else own
