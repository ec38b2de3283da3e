"""Two things timed in turn until their ratio is known well enough, and how far these times can be trusted.

A pair is one run of each, in random order, so that what slows both down cancels in the pair's ratio. Warming up ends
when the times stand still, timing when the interval of the ratio is narrow enough. The stopping rule looks at the
width of the interval and never at the ratio itself, so it favours no result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
ClockName = Literal["thread-cpu", "wall"]
Pair = tuple[Callable[[], object], Callable[[], object]]  # the candidate's run and the baseline's

BLOCK = 10  # pairs between two looks at the interval, or a tenth of those so far
LEAST = 30  # pairs before the interval is believed
WINDOW, STILL = 5, 0.05  # times stand still when medians of so many runs change by less than this share
LONGEST_WARMUP = 60  # pairs
DRIFT = 0.05  # share by which the baseline may change from the first third of a measurement to the last
SPREAD = 0.15  # of the baseline: half of its runs may differ from one another by this share


class Clock(Protocol):
    """Nanoseconds since some moment: of the wall, and of the calling thread's computing."""

    def wall(self) -> int:
        """Of the wall."""
        ...

    def cpu(self) -> int:
        """In which the calling thread computed."""
        ...


class SystemClock:
    """The clocks of this machine."""

    wall = staticmethod(time.perf_counter_ns)
    cpu = staticmethod(time.thread_time_ns)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to time: at most ``runs`` pairs and ``seconds``, and no longer than it takes to know the ratio.

    It is known when half the width of its 95 % interval is ``precision`` of it (0.01: one percent).
    """

    runs: int = 150
    precision: float = 0.01
    seconds: float = 60.0


USUAL = Effort()


@dataclass(frozen=True, kw_only=True)
class Series:
    """Times in ms, candidate and baseline beside one another: shape (pairs, 2), by both clocks."""

    wall: Floats
    cpu: Floats
    warmup: int  # pairs that ran before
    clock: ClockName  # the one that ratios are taken by

    @property
    def chosen(self) -> Floats:
        """The times that count for ratios."""
        return self.wall if self.clock == "wall" else self.cpu


def time_pairs(pair: Pair, effort: Effort, *, threads: int, seed: int = 0, clock: Clock | None = None) -> Series:
    """Warms both up, then times them in turn until ``effort`` is spent or the ratio is known.

    Args:
        pair: the two runs.
        effort: when to stop.
        threads: on how many the runs compute; with one, the calling thread's CPU time is what counts.
        seed: of the order within pairs and of the bootstrap.
        clock: the machine's, if not given.
    """
    own: Clock = clock or SystemClock()
    deadline = own.wall() + round(effort.seconds * 1e9)
    warmup = warm_up(pair, own, deadline)
    rng = np.random.default_rng(seed)
    times: list[tuple[tuple[float, float], tuple[float, float]]] = []
    while True:
        count = min(max(BLOCK, len(times) // 10), effort.runs - len(times))
        for first in rng.permutation(np.arange(count) % 2):
            times.append(_time_pair(pair, int(first), own))
            if len(times) >= 2 and own.wall() >= deadline:  # a slow model does not fill a block
                break
        both = np.array(times)  # (pairs, columns, clocks)
        series = Series(wall=both[:, :, 0], cpu=both[:, :, 1], warmup=warmup, clock=_choose_clock(threads, both))
        over = len(times) >= effort.runs or own.wall() >= deadline
        if over or (len(times) >= LEAST and half_width(series, seed) <= effort.precision):
            return series


def warm_up(pair: Pair, clock: Clock, deadline: int) -> int:
    """Runs both in turn until their wall times stand still; returns how often. First runs allocate and fill caches."""
    walls: list[tuple[float, float]] = []
    while len(walls) < LONGEST_WARMUP and (len(walls) < WINDOW or clock.wall() < deadline):
        (ours, _), (theirs, _) = _time_pair(pair, 0, clock)
        walls.append((ours, theirs))
        if len(walls) >= 2 * WINDOW:
            before, now = np.median(walls[-2 * WINDOW : -WINDOW], axis=0), np.median(walls[-WINDOW:], axis=0)
            if np.all(np.abs(now / before - 1) < STILL):
                break
    return len(walls)


def half_width(series: Series, seed: int) -> float:
    """Half the width of the ratio's 95 % interval, as a share of the ratio."""
    ratio, low, high = paired_ratio(series.chosen[:, 0], series.chosen[:, 1], seed=seed, resamples=300)
    return (high - low) / 2 / ratio


def doubts(series: Series) -> tuple[str, ...]:
    """What speaks against these times, in sentences; the baseline, which is always the same file, is the witness."""
    found: list[str] = []
    own = series.chosen[:, 1]
    third = max(1, len(own) // 3)
    drift = float(np.median(own[-third:]) / np.median(own[:third]) - 1)
    if abs(drift) > DRIFT:
        slower = "slower: the processor throttles, or a neighbour came"
        faster = "faster: a neighbour went, or it was not warm yet"
        found.append(f"the baseline became {abs(drift):.0%} {slower if drift > 0 else faster}")
    low, middle, high = np.percentile(own, [25, 50, 75])
    if (spread := float((high - low) / middle)) > SPREAD:
        found.append(f"the baseline's own times are spread by {spread:.0%}: a noisy neighbour")
    return tuple(found)


def waiting(series: Series) -> float:
    """The share of the baseline's wall time in which its thread did not compute; 0 where that cannot be told."""
    if series.clock == "wall":
        return 0.0
    return max(0.0, float(1 - np.median(series.cpu[:, 1] / series.wall[:, 1])))


def paired_ratio(
    candidate_times: ArrayLike, baseline_times: ArrayLike, *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Returns the ratio of two paired series of times and its 95 % interval: (ratio, low, high).

    The ratio is the median of the pairs' ratios, taken on a logarithmic scale so that swapping the two
    series gives exactly its inverse. Compared with the ratio of the two medians it cancels what slows both
    runs of a pair down, and is the steadier of the two under load. The interval is the percentile bootstrap
    over pairs (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

    Args:
        candidate_times: shape (n,), positive, any unit.
        baseline_times: shape (n,), positive, the same unit; entry i was timed next to entry i of the other.
        seed: of the resampling.
        resamples: bootstrap samples; memory is resamples x n x 8 bytes.

    Raises:
        ValueError: series of different lengths, empty ones, or a time that is not positive and finite.
    """
    ours = np.asarray(candidate_times, dtype=np.float64)
    theirs = np.asarray(baseline_times, dtype=np.float64)
    if ours.ndim != 1 or ours.shape != theirs.shape or len(ours) == 0:
        raise ValueError(f"the two series must be flat and pair up; got shapes {ours.shape}, {theirs.shape}")
    if not all(np.isfinite(times).all() and (times > 0).all() for times in (ours, theirs)):
        raise ValueError("every time must be positive and finite")
    logs: Floats = np.log(ours / theirs)
    picks = np.random.default_rng(seed).integers(0, len(logs), size=(resamples, len(logs)))
    medians: Floats = np.median(logs[picks], axis=1)
    low, high = (float(value) for value in np.exp(np.percentile(medians, [2.5, 97.5])))
    return float(np.exp(np.median(logs))), low, high


def _time_pair(pair: Pair, first: int, clock: Clock) -> tuple[tuple[float, float], tuple[float, float]]:
    """Runs both, the one in column ``first`` before the other; ms of candidate and baseline, each (wall, CPU)."""
    times = [(0.0, 0.0), (0.0, 0.0)]
    for column in (first, 1 - first):
        wall, cpu = clock.wall(), clock.cpu()
        pair[column]()
        cpu_end, wall_end = clock.cpu(), clock.wall()
        times[column] = ((wall_end - wall) / 1e6, (cpu_end - cpu) / 1e6)
    return times[0], times[1]


def _choose_clock(threads: int, times: Floats) -> ClockName:
    """The thread's CPU clock for one thread, unless its ticks are too coarse for these runs."""
    coarse = time.get_clock_info("thread_time").resolution > 1e-5 or bool((times[:, :, 1] <= 0).any())
    return "wall" if threads > 1 or coarse else "thread-cpu"
