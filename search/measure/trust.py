"""How far measured ratios can be trusted on this machine: the same files timed while it is quiet, then busy.

They are timed as a study's last measurement does it (search/again.py): all files, then all of them once more, and then
those that were disturbed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from search.again import PASSES
from search.errors import UserError
from search.final import pooled
from search.measure.apart import Apart
from search.measure.host import host_info
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.results import open_study
from search.study import FinalSettings, StudyConfig
from search.target import Target

# Other work as it is beside a training: matrices that do not fit into the caches.
BUSY = "import numpy as n\na = n.ones((700, 700), n.float32)\nwhile True: a @ a"
SETTLING = 2.0  # seconds until the busy processes compute


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Ratios of the same files, measured several times.

    ``repeat_difference`` is the largest relative difference between two quiet measurements of a file,
    ``load_difference`` that between the median quiet one and the one under load, and ``kendall_tau`` compares their
    orders (1: the same). ``doubted`` counts the files that say themselves that they are not sure under load.
    """

    host: str
    busy_processes: int
    files: list[str]
    quiet: list[list[float]]  # (repeats, files)
    loaded: list[float]
    repeat_difference: float
    load_difference: float
    kendall_tau: float
    doubted: int
    seconds: float


def measure_trust(
    files: Sequence[Path],
    baseline: Path,
    target: Target,
    effort: Effort,
    *,
    rounds: int = FinalSettings().rounds,
    repeats: int = 2,
    busy: int | None = None,
    on_ratio: Callable[[Path, float], None] = lambda file, ratio: None,
) -> Trust:
    """Measures every file ``repeats`` times as the machine is, then once with ``busy`` processes beside.

    Args:
        files: at least two, whose order is compared.
        baseline: what ratios are to.
        target: what they are timed on.
        effort: how long, in each of the passes of a measurement.
        rounds: how often a file is timed in a measurement, at most; twice, if nobody disturbs it.
        repeats: quiet measurements of each file, all files in turn.
        busy: processes that compute without a rest; as many as this process has cores, if not given.
        on_ratio: hears of every pass.
    """
    count = len(os.sched_getaffinity(0)) if busy is None else busy
    apart, start = Apart(target), time.monotonic()

    def once(file: Path) -> Latency:
        found = apart.measure(file, effort, baseline=baseline)
        on_ratio(file, found.ratio)
        return found

    def measured() -> list[Latency]:
        found: dict[Path, list[Latency]] = {file: [] for file in files}
        for _ in range(rounds):
            for file, own in found.items():
                if sum(not latency.disturbed for latency in own) < PASSES:
                    own.append(once(file))
        return [pooled(own) for own in found.values()]

    try:
        quiet = [[own.ratio for own in measured()] for _ in range(repeats)]
        with _busy(count):
            under_load = measured()
    finally:
        apart.close()
    loaded = [own.ratio for own in under_load]
    steady = np.median(quiet, axis=0)
    order: Any = kendalltau(steady, loaded)  # its type has no attributes
    return Trust(
        host=host_info(target.as_runtime).id,
        busy_processes=count,
        files=[file.parent.name for file in files],
        quiet=quiet,
        loaded=loaded,
        repeat_difference=float((np.max(quiet, axis=0) / np.min(quiet, axis=0) - 1).max()),
        load_difference=float(np.abs(np.array(loaded) / steady - 1).max()),
        kendall_tau=float(order.statistic),
        doubted=sum(bool(own.doubts) for own in under_load),
        seconds=time.monotonic() - start,
    )


def files_of(study: Path, count: int) -> tuple[list[Path], Path, StudyConfig]:
    """So many artifacts of a study, evenly over their latencies, its baseline's file, and the study.

    Raises:
        UserError: fewer than two artifacts are there; results from elsewhere may come without them.
    """
    config, store = open_study(study)
    timed: list[tuple[float, Path]] = []
    for record in store.searched:
        if record.artifact is not None and record.measurement is not None:
            file = study / record.artifact.path
            timed += [(record.measurement.latency.ratio, file)] if file.is_file() else []
    if len(timed) < 2 or store.baseline is None or store.baseline.artifact is None:
        raise UserError(f"trust: {study} has not two model files to compare; run the study on this machine first")
    timed.sort()
    picked = np.unique(np.linspace(0, len(timed) - 1, count).round().astype(int))
    return [timed[index][1] for index in picked], study / store.baseline.artifact.path, config


@contextmanager
def _busy(count: int) -> Generator[None]:
    """Other work on the machine, while the block lasts."""
    single: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    others = [subprocess.Popen([sys.executable, "-c", BUSY], env=single) for _ in range(count)]
    try:
        time.sleep(SETTLING)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
