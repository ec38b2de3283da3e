"""How long a bench takes for a file: what bounds the trials of a study once there are many workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from search.measure.apart import Apart
from search.measure.pairs import Effort
from search.measure.trust import files_of


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One file timed as before training and as after it: seconds of the child that does it, by the wall and its CPU.

    On a busy machine the CPU time is what an idle one would take.
    """

    record: str
    ratio: float
    quick: float
    quick_cpu: float
    full: float
    full_cpu: float


def time_files(folder: Path, count: int, on_file: Callable[[Timed], None] = lambda timed: None) -> list[Timed]:
    """Times so many model files of a study, evenly over their latencies, beside its baseline.

    Raises:
        UserError: the study has fewer files than that.
    """
    files, baseline, config = files_of(folder, count)
    target = config.target
    quick, full = target.effort(max(20, target.runs // 4)), target.effort()  # as search.artifact.Gauge has it
    found: list[Timed] = []
    with Apart(target) as apart:
        apart.measure(baseline, quick, baseline=baseline)  # starts the child
        assert apart.pid is not None
        child = psutil.Process(apart.pid)

        def timed(file: Path, effort: Effort) -> tuple[float, float, float]:
            wall, cpu = time.monotonic(), sum(child.cpu_times()[:2])
            ratio = apart.measure(file, effort, baseline=baseline).ratio
            return time.monotonic() - wall, sum(child.cpu_times()[:2]) - cpu, ratio

        for file in files:
            wall, cpu, _ = timed(file, quick)
            full_wall, full_cpu, ratio = timed(file, full)
            found.append(
                Timed(
                    record=file.parent.name, ratio=ratio, quick=wall, quick_cpu=cpu, full=full_wall, full_cpu=full_cpu
                )
            )
            on_file(found[-1])
    return found
