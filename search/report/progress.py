"""What a person sees while a study runs: one line a trial, with the time that is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.record import Record
from search.report.tables import FOLDING, front_rows, header
from search.study import StudyConfig
from spaces.describe import describe
from spaces.recipe import Recipe


class ConsoleProgress:
    """Prints stages and trials as they end. Lines only, so it reads the same in a terminal and in a log."""

    def __init__(self, config: StudyConfig, *, ended: int = 0) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._budget = config.budget
        self._start, self._search_start = time.monotonic(), time.monotonic()
        self._before, self._ended = ended, ended

    def stage(self, text: str) -> None:
        """A step of the study begins."""
        self._search_start = time.monotonic()
        self._console.print(f"[dim]{self._clock()}[/]  {text}")

    def trial_ended(self, recipe: Recipe, records: list[Record], reason: str) -> None:
        """A trial ended with these records."""
        self._ended += 1
        limit = f"/{self._budget.trials}" if self._budget.trials else ""
        outcome = "  ".join(_outcome(record) for record in records)
        trunk = describe(recipe).rsplit(" · ", 1)[0]
        self._console.print(
            f"[dim]{self._clock()}[/]  trial {self._ended}{limit}  {trunk}  {reason or outcome}  [dim]{self._left()}[/]"
        )

    def _left(self) -> str:
        elapsed, done = time.monotonic() - self._search_start, self._ended - self._before
        left = []
        if self._budget.trials:
            left.append(elapsed / done * max(0, self._budget.trials - self._ended))
        if self._budget.minutes:
            left.append(max(0.0, 60 * self._budget.minutes - (time.monotonic() - self._start)))
        return f"about {_minutes(min(left))} left" if left else ""

    def _clock(self) -> str:
        return _minutes(time.monotonic() - self._start)


def print_front(result: dict[str, Any], folder: Path) -> None:
    """The front as a table, where the files are, and what to type next."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a log or a pipe has no edge to fold at
    table = Table(box=None, pad_edge=False)
    for name in header(result):
        table.add_column(name, no_wrap=name not in FOLDING, overflow="fold")
    for row in front_rows(result):
        table.add_row(*row)
    console.print(table)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(result["states"].items()))
    console.print(f"\n{result['records']} records ({counts}), hypervolume {result['hypervolume']:.4f}")
    console.print(f"Everything is in {folder}; the report is {folder}/report.html (and report.md)", soft_wrap=True)
    console.print(f"Next: python -m search front {folder} --pick recommended", soft_wrap=True)


def _outcome(record: Record) -> str:
    kind, measured = record.recipe.quantize.kind, record.measurement
    if record.state == "complete" and measured and measured.accuracy:
        return f"{kind} {measured.accuracy.metric} {measured.accuracy.value:.3f} at ×{measured.latency.ratio:.2f}"
    return f"{kind} {record.state}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60:d}:{int(seconds) % 60:02d}"
