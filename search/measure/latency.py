"""Latency of an exported model next to its baseline.

Milliseconds depend on what else the machine does, so what is compared between recipes is the *ratio* to a
baseline model timed in the same process at the same moment (search/measure/pairs.py). With one thread a run
is timed by the CPU time of the calling thread, which computes; it equals the wall clock on a quiet machine and barely
moves on a loaded one. With more threads the work is spread over a pool that also waits, and on a GPU none of the CPU's
time is the model's, so the wall clock is all there is, and the machine has to be quiet.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from search.errors import MeasurementError
from search.measure.doubts import doubts, unsteady, waiting
from search.measure.pairs import USUAL, Clock, ClockName, Effort, Run, Series, ThreadClock, WallClock, time_pairs
from search.measure.witness import Rest, Witness
from search.runtimes.session import Runtime, checked, made_up
from search.runtimes.table import described, open_session

ONNX_CPU = Runtime()
ATTEMPTS = 2  # of a measurement whose baseline was unsteady


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One paired measurement. `p50_ms`, `p95_ms` and `fps` are wall time; the ratio is by `clock`.

    Times are of one run, candidate's and baseline's alike, which has `batch` pictures; `fps` is pictures a second.
    `ratio` is candidate over baseline, so 0.5 is twice as fast; `ratio_low` and `ratio_high` bound it with
    95 % confidence. `cores` are the ones the measurement was pinned to, None when it was not pinned. `waiting` is the
    share of the baseline's wall time in which other work held the core: milliseconds are too long by it, but for
    `quiet_ms`, and the ratio is not.
    `sessions` is how often both models were loaded for it, and `cold_start_ms` how long the candidate's loading took.
    `disturbed` says that others used the machine's memory for too much of the time (search/measure/witness.py).
    `runtime` names what ran the candidate, with its version, and `host` the machine; both are empty in records of old.
    `doubts` are sentences on why these numbers should be taken again; there are none in a good measurement.
    """

    p50_ms: float
    p95_ms: float
    fps: float
    ratio: float
    ratio_low: float
    ratio_high: float
    baseline_p50_ms: float
    runs: int
    threads: int
    clock: ClockName
    cores: tuple[int, ...] | None
    sessions: int = 1
    cold_start_ms: float | None = None
    warmup: int = 0
    waiting: float = 0.0
    doubts: tuple[str, ...] = ()
    disturbed: bool = False
    runtime: str = ""
    host: str = ""
    batch: int = 1

    def __post_init__(self) -> None:
        if self.cores is not None:  # JSON has no tuples: a record read back gives a list
            object.__setattr__(self, "cores", tuple(self.cores))
        object.__setattr__(self, "doubts", tuple(self.doubts))

    @property
    def quiet_ms(self) -> float:
        """Milliseconds of a run while nobody else has the core, which is what limits in milliseconds are about.

        An estimate: the baseline's median without its `waiting`, times the ratio. A short run waits seldom and then for
        long, so `waiting` cannot be taken off its own median. What a neighbour costs by other means than the core, as
        the memory or its other hardware thread, is still in it; by the wall clock, all that it costs.
        """
        return self.ratio * self.baseline_p50_ms * (1 - self.waiting)


def measure_latency(
    candidate: Path,
    baseline: Path,
    *,
    runtime: Runtime = ONNX_CPU,
    baseline_runtime: Runtime | None = None,
    effort: Effort = USUAL,
    cores: Sequence[int] | None = None,
    batch: int = 1,
    seed: int = 0,
) -> Latency:
    """Times two model files in turn, each on a fixed random input of its own input shape.

    If the baseline was unsteady, the measurement is made a second time, and the one with fewer doubts is returned.
    Other doubts would be the same then.

    Args:
        candidate: the model in question.
        baseline: the model to compare with; its input size may differ.
        runtime: what runs them; the ratio is of CPU time with one thread, of wall time with more or on a GPU.
        baseline_runtime: what runs the baseline, if that is another; with as many threads.
        effort: when the ratio is known well enough, and when to give up.
        cores: logical cores to pin this thread and the sessions' threads to. None takes the last ones that
            this process may use, as many as threads. Linux only: another system leaves the placement to itself.
        batch: pictures in the input of both files.
        seed: of the input and of the order within pairs.

    Raises:
        MeasurementError: a file is missing, broken, or has an input that cannot be made up; fewer than 2
            runs; cores that this process may not use, or fewer of them than threads.
    """
    threads = runtime.threads
    if effort.runs < 2 or threads < 1:
        raise MeasurementError(
            f"cannot time {effort.runs} runs on {threads} threads; ask for at least 2 runs and 1 thread"
        )
    if cores is not None and len(set(cores)) < threads:
        raise MeasurementError(
            f"{threads} threads cannot run at once on cores {sorted(set(cores))}; give at least as many cores"
        )
    # Threads inherit the placement of the thread that makes them, so the sessions are made inside.
    with pinned(last_cores(threads) if cores is None else cores) as taken:
        ours, theirs = _Model(candidate, runtime, seed), _Model(baseline, baseline_runtime or runtime, seed)
        clock = clock_of(runtime, baseline_runtime or runtime)
        found: list[Series] = []
        while len(found) < ATTEMPTS and (not found or unsteady(found[-1])):
            openers, own_seed = (ours.open, theirs.open), seed + len(found)
            series = time_pairs(openers, effort, threads=threads, witness=_witness(taken), seed=own_seed, clock=clock)
            found.append(series)
    measured = [_latency(series, effort, runtime, taken, batch) for series in found]
    return min(measured, key=lambda latency: len(latency.doubts))


def clock_of(*runtimes: Runtime) -> Clock:
    """The clock that tells how long one thread's run takes on each of these."""
    return WallClock() if any(runtime.part.device == "gpu" for runtime in runtimes) else ThreadClock()


@cache
def _witness(cores: tuple[int, ...] | None) -> Witness:
    """The one of this process on these cores: the longer it looks, the better it knows what rest is."""
    return Witness(rest=Rest(cores))


class _Model:
    """A file that is loaded again and again, with the same input every time."""

    def __init__(self, path: Path, runtime: Runtime, seed: int) -> None:
        self._path, self._runtime = path, runtime
        self._arrays = made_up(open_session(path, runtime), path, seed)

    def open(self) -> Run:
        return checked(open_session(self._path, self._runtime).bind(self._arrays), self._path)


def _latency(series: Series, effort: Effort, runtime: Runtime, cores: tuple[int, ...] | None, batch: int) -> Latency:
    ratio, low, high = series.ratio()
    p50, p95 = (float(value) for value in np.percentile(series.wall[:, 0], [50, 95]))
    return Latency(
        p50_ms=p50,
        p95_ms=p95,
        fps=1000 * batch / p50,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        baseline_p50_ms=float(np.median(series.wall[:, 1])),
        runs=len(series.wall),
        threads=runtime.threads,
        clock=series.clock,
        cores=cores,
        sessions=len(series.loading),
        cold_start_ms=float(np.median(series.loading[:, 0])),
        warmup=series.warmup,
        waiting=waiting(series),
        doubts=doubts(series, effort),
        disturbed=series.disturbed,
        runtime=described(runtime),
        batch=batch,
    )


def last_cores(count: int) -> tuple[int, ...]:
    """The last cores that this process may use: interrupts and other programs tend to the first. Empty if too few."""
    usable = usable_cores() if hasattr(os, "sched_getaffinity") else ()
    return tuple(usable[-count:]) if len(usable) >= count else ()


def usable_cores() -> tuple[int, ...]:
    """The logical cores that this process may use; all of the machine where the system does not tell."""
    return (
        tuple(sorted(os.sched_getaffinity(0)))
        if hasattr(os, "sched_getaffinity")
        else tuple(range(os.cpu_count() or 1))
    )


@contextmanager
def pinned(cores: Sequence[int] | None) -> Generator[tuple[int, ...] | None, None, None]:
    """Keeps the calling thread on the given cores; yields them, or None where it is not pinned."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield None
        return
    before = os.sched_getaffinity(0)
    wanted = tuple(sorted(set(cores)))
    if not before.issuperset(wanted):
        raise MeasurementError(f"cannot pin to cores {list(wanted)}: this process may use only {sorted(before)}")
    os.sched_setaffinity(0, wanted)
    try:
        yield wanted
    finally:
        os.sched_setaffinity(0, before)
