"""Latency of an exported model next to its baseline, on ONNX Runtime's CPU provider.

Milliseconds depend on what else the machine does, so what is compared between recipes is the *ratio* to a
baseline model timed in the same process at the same moment (search/measure/pairs.py). With one thread a run
is timed by the CPU time of the calling thread, which is where ONNX Runtime computes then; it equals the wall
clock on a quiet machine and barely moves on a loaded one. With more threads the work is spread over a pool that
also waits, so the wall clock is all there is, and the machine has to be quiet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from search.errors import UserError
from search.measure.pairs import USUAL, ClockName, Effort, Series, doubts, paired_ratio, time_pairs, waiting

_ort: Any = onnxruntime  # it has no type stubs
ATTEMPTS = 2  # of a measurement that gives reason to doubt it

_INPUT_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


class MeasurementError(UserError):
    """A file that cannot be timed, or a way of timing that this machine does not allow."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """One paired measurement. `p50_ms`, `p95_ms` and `fps` are wall time; the ratio is by `clock`.

    `ratio` is candidate over baseline, so 0.5 is twice as fast; `ratio_low` and `ratio_high` bound it with
    95 % confidence. `cores` are the ones the measurement was pinned to, None when it was not pinned. `waiting` is the
    share of the wall time in which other work held the core: milliseconds are too long by it, the ratio is not.
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
    warmup: int = 0
    waiting: float = 0.0
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.cores is not None:  # JSON has no tuples: a record read back gives a list
            object.__setattr__(self, "cores", tuple(self.cores))
        object.__setattr__(self, "doubts", tuple(self.doubts))


def measure_latency(
    candidate: Path,
    baseline: Path,
    *,
    threads: int = 1,
    effort: Effort = USUAL,
    cores: Sequence[int] | None = None,
    seed: int = 0,
) -> Latency:
    """Times two ONNX files in turn, each on a fixed random input of its own input shape.

    A measurement that gives reason to doubt it is made a second time, and the one with fewer doubts is returned.

    Args:
        candidate: the ONNX file in question.
        baseline: the ONNX file to compare with; its input size may differ.
        threads: intra-op threads of both sessions; the ratio is of CPU time with 1, of wall time with more.
        effort: when the ratio is known well enough, and when to give up.
        cores: logical cores to pin this thread and the sessions' threads to. None takes the last `threads` cores that
            this process may use. Linux only: another system leaves the placement to itself.
        seed: of the input, of the order within pairs, and of the bootstrap.

    Raises:
        MeasurementError: a file is missing, broken, or has an input that cannot be made up; fewer than 2
            runs; cores that this process may not use, or fewer of them than threads.
    """
    if effort.runs < 2 or threads < 1:
        raise MeasurementError(
            f"cannot time {effort.runs} runs on {threads} threads; ask for at least 2 runs and 1 thread"
        )
    if cores is not None and len(set(cores)) < threads:
        raise MeasurementError(
            f"{threads} threads cannot run at once on cores {sorted(set(cores))}; give at least as many cores"
        )
    # Threads inherit the placement of the thread that makes them, so the sessions are made inside.
    with _pinned(_last_cores(threads) if cores is None else cores) as pinned:
        pair = (_runner(candidate, threads, seed), _runner(baseline, threads, seed))
        found: list[Latency] = []
        while len(found) < ATTEMPTS and (not found or found[-1].doubts):
            series = time_pairs(pair, effort, threads=threads, seed=seed + len(found))
            found.append(_latency(series, threads=threads, cores=pinned, seed=seed))
    return min(found, key=lambda latency: len(latency.doubts))


def _latency(series: Series, *, threads: int, cores: tuple[int, ...] | None, seed: int) -> Latency:
    ratio, low, high = paired_ratio(series.chosen[:, 0], series.chosen[:, 1], seed=seed)
    p50, p95 = (float(value) for value in np.percentile(series.wall[:, 0], [50, 95]))
    return Latency(
        p50_ms=p50,
        p95_ms=p95,
        fps=1000 / p50,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        baseline_p50_ms=float(np.median(series.wall[:, 1])),
        runs=len(series.wall),
        threads=threads,
        clock=series.clock,
        cores=cores,
        warmup=series.warmup,
        waiting=waiting(series),
        doubts=doubts(series),
    )


def open_session(path: Path, *, threads: int, optimised: Path | None = None) -> onnxruntime.InferenceSession:
    """Opens an ONNX file on the CPU provider as it is timed: every graph optimisation, operators in turn.

    The graph as it was optimised is written to ``optimised``, if given.

    Raises:
        MeasurementError: the file is missing, or ONNX Runtime refuses it.
    """
    if not path.is_file():
        raise MeasurementError(f"there is no ONNX file at {path}; export the model first, or correct the path")
    options = _ort.SessionOptions()
    options.graph_optimization_level = _ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = _ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    if threads > 1:
        # Two sessions take turns here: the idle one's threads must not spin on the cores of the one being
        # timed.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:  # ONNX Runtime's exceptions have no base class of their own
        return _ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise MeasurementError(
            f"ONNX Runtime {_ort.__version__} cannot load {path}: {error}; export the model again, or "
            "with an operator set that this version supports"
        ) from error


def _runner(path: Path, threads: int, seed: int) -> Callable[[], object]:
    """Returns a function that runs the model once, on the same made-up input every time."""
    session: Any = open_session(path, threads=threads)
    feed = {item.name: _made_up_input(item, path, seed) for item in session.get_inputs()}
    try:
        session.run(None, feed)
    except Exception as error:
        raise MeasurementError(f"{path} loads but does not run: {error}; export the model again") from error
    return lambda: session.run(None, feed)


def _made_up_input(item: Any, path: Path, seed: int) -> NDArray[Any]:
    """Returns a random input: values in [0, 1), or 0 to 255 for bytes; equal shapes get equal values."""
    kind = _INPUT_TYPES.get(item.type)
    # A batch size left open is one image: that is how a single-stream deployment runs.
    shape = [1 if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(item.shape)]
    if kind is None or not all(isinstance(size, int) and size > 0 for size in shape):
        raise MeasurementError(
            f"input {item.name!r} of {path} has type {item.type} and shape {item.shape}, which cannot be "
            f"made up; export the model with a fixed input size and one of {', '.join(_INPUT_TYPES)}"
        )
    values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return (values * 256).astype(kind) if kind is np.uint8 else values.astype(kind)


def _last_cores(count: int) -> tuple[int, ...]:
    """The last cores that this process may use: interrupts and other programs tend to the first. Empty if too few."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return tuple(usable[-count:]) if len(usable) >= count else ()


@contextmanager
def _pinned(cores: Sequence[int] | None) -> Generator[tuple[int, ...] | None, None, None]:
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
