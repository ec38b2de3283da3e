"""How far measured ratios can be trusted on this machine: the same files timed while it is quiet, then busy.

They are timed as a study's last measurement does it (search/again.py): all files, then all of them once more, and then
those that were disturbed. Every pass over a file can be kept, so that what is cut off goes on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.stats import kendalltau

from search.again import PASSES
from search.errors import UserError
from search.final import pooled
from search.measure.apart import Apart
from search.measure.host import host_info
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.results import open_study
from search.store import append_lines, as_line, whole_lines
from search.study import FinalSettings, StudyConfig
from search.target import Target

# Other work as it is beside a training: matrices that do not fit into the caches. It ends with the process it is told.
BUSY = """
import os, sys, numpy
values = numpy.ones((700, 700), numpy.float32)
while os.getppid() == int(sys.argv[1]):
    values @ values
"""
SETTLING = 2.0  # seconds until the busy processes compute


class Pass(BaseModel):
    """One time that a file was timed: in which measurement of it, 0 being the first, beside so many busy processes."""

    model_config = ConfigDict(frozen=True)

    measurement: int
    busy: int
    file: str
    latency: Latency


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


def measure_trust(
    files: Sequence[Path],
    baseline: Path,
    target: Target,
    effort: Effort,
    *,
    rounds: int = FinalSettings().rounds,
    repeats: int = 2,
    busy: int | None = None,
    kept: Iterable[Pass] = (),
    on_pass: Callable[[Pass], None] = lambda found: None,
) -> Trust:
    """Measures every file ``repeats`` times as the machine is, then once with ``busy`` processes beside.

    Args:
        files: at least two, whose order is compared; each in a folder of its own, whose name stands for it.
        baseline: what ratios are to.
        target: what they are timed on.
        effort: how long, in each of the passes of a measurement.
        rounds: how often a file is timed in a measurement, at most; twice, if nobody disturbs it.
        repeats: quiet measurements of each file, all files in turn; at least two.
        busy: processes that compute without a rest; as many as this process has cores, if not given.
        kept: passes of a run that was cut off, which are not made again.
        on_pass: hears of every new one.
    """
    count = len(os.sched_getaffinity(0)) if busy is None else busy
    done: defaultdict[tuple[int, str], list[Latency]] = defaultdict(list)
    for each in kept:
        done[each.measurement, each.file].append(each.latency)
    with Apart(target) as apart:
        for measurement in range(repeats + 1):
            beside = count if measurement == repeats else 0
            with _busy(beside) if beside else nullcontext():
                for file in _due(files, measurement, done, rounds):
                    latency = apart.measure(file, effort, baseline=baseline)
                    done[measurement, name_of(file)].append(latency)
                    on_pass(Pass(measurement=measurement, busy=beside, file=name_of(file), latency=latency))
    found = [[pooled(done[measurement, name_of(file)]) for file in files] for measurement in range(repeats + 1)]
    return _compared(files, found[:-1], found[-1], host=host_info(target.as_runtime).id, busy=count)


def name_of(file: Path) -> str:
    """What stands for a model's file, or folder: the name of the folder that it is in."""
    return file.parent.name


class Passes:
    """The passes over files in a file of JSON lines, or nowhere; what is added is on the disk before the call returns.

    Raises:
        UserError: passes are there that are not of these files.
    """

    def __init__(self, path: Path | None, files: Sequence[Path]) -> None:
        self._path = path
        self.kept = [Pass.model_validate_json(line) for line in whole_lines(path)] if path else []
        if strange := {each.file for each in self.kept} - {name_of(file) for file in files}:
            raise UserError(f"{path} has passes over {min(strange)}, which is not timed now; name another file")

    def add(self, found: Pass) -> None:
        """Adds one."""
        if self._path is not None:
            append_lines(self._path, [as_line(found)])


def _due(
    files: Sequence[Path], measurement: int, done: dict[tuple[int, str], list[Latency]], rounds: int
) -> Generator[Path]:
    """The files to time next, round by round: twice each, and those that were disturbed again."""
    for number in range(rounds):
        for file in files:
            own = done[measurement, name_of(file)]
            if len(own) == number and sum(not latency.disturbed for latency in own) < PASSES:
                yield file


def _compared(
    files: Sequence[Path], quiet: Sequence[Sequence[Latency]], under_load: Sequence[Latency], *, host: str, busy: int
) -> Trust:
    """What repeats and load change; ``quiet`` has a sequence over all files for each repeat."""
    ratios, loaded = np.array([[own.ratio for own in each] for each in quiet]), [own.ratio for own in under_load]
    steady = np.median(ratios, axis=0)
    order: Any = kendalltau(steady, loaded)  # its type has no attributes
    return Trust(
        host=host,
        busy_processes=busy,
        files=[name_of(file) for file in files],
        quiet=ratios.tolist(),
        loaded=loaded,
        repeat_difference=float((ratios.max(axis=0) / ratios.min(axis=0) - 1).max()),
        load_difference=float(np.abs(np.array(loaded) / steady - 1).max()),
        kendall_tau=float(order.statistic),
        doubted=sum(bool(own.doubts) for own in under_load),
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
            timed += [(record.measurement.latency.ratio, file)] if file.exists() else []  # ncnn's is a folder
    if len(timed) < 2 or store.baseline is None or store.baseline.artifact is None:
        raise UserError(f"trust: {study} has not two model files to compare; run the study on this machine first")
    timed.sort()
    picked = np.unique(np.linspace(0, len(timed) - 1, count).round().astype(int))
    return [timed[index][1] for index in picked], study / store.baseline.artifact.path, config


@contextmanager
def _busy(count: int) -> Generator[list[subprocess.Popen[bytes]]]:
    """Other work on the machine, while the block lasts: its processes."""
    single: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    others = [subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())], env=single) for _ in range(count)]
    try:
        time.sleep(SETTLING)
        yield others
    finally:
        for other in others:
            other.kill()
            other.wait()
