"""Follows a study from outside: reads what its folder has got since the last look, and tells what is new."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.live.snapshot import read_snapshot
from search.live.totals import Totals
from search.record import Record
from search.report.html.data import record_row
from search.results import member, open_study
from search.store import Started
from search.study import StudyConfig

Object = dict[str, Any]
NOT_SENT = frozenset({"curve", "reason", "trunk"})  # of a record's row: what the page does not show


class Tail:
    """The lines that a file has got since the last time, whole ones only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset, self._file = 0, (0, 0)

    def restarted(self) -> bool:
        """Whether the file is another one than before, or has become shorter."""
        status = self._status()
        return self._offset > 0 and (
            status is None or self._identity(status) != self._file or status.st_size < self._offset
        )

    def __iter__(self) -> Iterator[str]:
        """The new lines."""
        status = self._status()
        if status is None or status.st_size == self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset, self._file = self._offset + len(whole), self._identity(status)
        yield from whole.decode().split("\n")[:-1]

    def _status(self) -> os.stat_result | None:
        try:
            return self._path.stat()
        except FileNotFoundError:
            return None

    @staticmethod
    def _identity(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino


class Follower:
    """What is known of a study folder, which may not be there yet, may be at work, or have ended long ago.

    It may be asked from several threads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._begin()

    def changes(self, token: str, records: int, moments: int) -> Object:
        """What somebody does not know yet who knows so many records and moments of what ``token`` stands for.

        ``token`` in the answer is what to say the next time; if it is another one, nothing of before holds.
        """
        with self._lock:
            self._read()
            if token != self._token:
                records = moments = 0
            live = read_snapshot(self._folder)
            now = time.time()
            return {
                "token": self._token,
                "records": {name: column[records:] for name, column in self._columns.items()},
                "moments": self._moments(max(0, moments - 1)),  # the last one may have changed
                "kept_moments": max(0, moments - 1),
                "study": self._study(),
                "front": [self._rows[record.id] for record in self._totals.front] if self._totals else [],
                "states": dict(self._totals.states) if self._totals else {},
                "hypervolume": self._totals.hypervolume if self._totals else 0.0,
                "live": live.model_dump(mode="json") if live else None,
                "alive": live is not None and live.alive(now),
                "report": (self._folder / "report.html").is_file(),
                "now": now,
            }

    def recipe(self, record_id: str) -> str | None:
        """The recipe of a record as YAML; None if there is no such record."""
        with self._lock:
            line = self._recipes.get(record_id)
        return None if line is None else Record.model_validate_json(line).recipe.to_yaml()

    def _begin(self) -> None:
        self._token = f"{time.time_ns():x}"
        self._config: StudyConfig | None = None
        self._totals: Totals | None = None
        self._records, self._started = Tail(self._folder / "records.jsonl"), Tail(self._folder / "started.jsonl")
        self._columns: dict[str, list[Any]] = {}
        self._rows: dict[str, int] = {}
        self._recipes: dict[str, str] = {}

    def _read(self) -> None:
        if self._records.restarted():
            self._begin()
        if self._config is None:
            try:
                self._config, _ = open_study(self._folder)
            except UserError:  # not begun yet
                return
            self._totals = Totals(self._config)
        assert self._totals is not None
        for line in self._started:
            if self._totals.started is None:
                self._totals.started = Started.model_validate_json(line).at
        for line in self._records:
            self._add(line, self._totals)

    def _add(self, line: str, totals: Totals) -> None:
        record = Record.model_validate_json(line)
        if record.id in self._rows:
            return
        within = totals.add(record)
        if record is totals.baseline:
            return
        self._recipes[record.id] = line
        self._rows[record.id] = len(self._rows)
        for name, value in record_row(record, totals.started, within).items():
            if name not in NOT_SENT:
                self._columns.setdefault(name, []).append(value)

    def _moments(self, first: int) -> list[list[float]]:
        if self._totals is None or self._totals.started is None:
            return []
        return [[m.minutes, m.trials, m.epochs, m.hypervolume] for m in self._totals.moments[first:]]

    def _study(self) -> Object | None:
        if self._config is None:
            return None
        baseline = self._totals.baseline if self._totals else None
        told = member(baseline, baseline) if baseline and baseline.artifact else None
        return {
            "title": self._config.name,
            "folder": str(self._folder),
            "batch": self._config.target.batch,
            "baseline": told and {
                "name": "the baseline",
                "text": "as it came in",
                "accuracy": told["accuracy"],
                "accuracy_ci": told["accuracy_ci"],
                "latency": told["latency_ratio"],
                "latency_ci": told["latency_ratio_ci"],
                "ms": told["latency_ms_quiet"],
                "size": told["size_ratio"],
                "mb": told["size_bytes"] / 1e6,
            },
            "metric": baseline.measurement.accuracy.metric
            if baseline and baseline.measurement and baseline.measurement.accuracy
            else "accuracy",
        }  # fmt: skip


def encoded(content: Object) -> bytes:
    """JSON, in which every number is finite."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
