"""Follows a study from inside its driver: shows it, and writes ``live.json`` for other processes, once a second."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Protocol

from search.live.snapshot import FILE, Activities, Running, Snapshot, clock
from search.live.totals import Totals
from search.record import Record
from search.store import Store, write_atomically
from search.study import StudyConfig
from spaces.describe import describe
from spaces.recipe import Recipe

BEAT = 1.0  # seconds
LINES = 50  # of the log that are kept
ReadBoard = Callable[[], Activities | None]


class Display(Protocol):
    """What shows a study to a person. It is called from several threads, but never twice at once."""

    def open(self, folder: Path) -> None:
        """The study begins."""

    def event(self, text: str) -> None:
        """Something happened: one line."""

    def beat(self, snapshot: Snapshot, totals: Totals) -> None:
        """How the study is now, about once a second."""

    def close(self) -> None:
        """The study has ended, or broke."""


class Tracker:
    """Knows what the driver and the workers of a study do; a context that lasts as long as the study is at work.

    Args:
        config: the study's.
        folder: of the study; ``live.json`` is written there.
        store: its records, which only the driver's thread adds to.
        display: what shows it.
    """

    def __init__(self, config: StudyConfig, folder: Path, store: Store, display: Display) -> None:
        self._config, self._folder, self._store, self._display = config, folder, store, display
        self._lock, self._hearing, self._done = threading.RLock(), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beats, name="live", daemon=True)
        self._totals, self._seen = Totals(config), 0
        self._running: dict[str, Running] = {}
        self._read_board: ReadBoard | None = None
        self._log: deque[str] = deque(maxlen=LINES)
        self._before = store.trials()
        self._started = self._stage_since = time.time()
        self._stage, self._node = "", socket.gethostname()

    def __enter__(self) -> Tracker:
        """Opens the display."""
        self._take_in()
        self._display.open(self._folder)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says how it ended, and closes the display."""
        self._done.set()
        self._thread.join()
        self._take_in()
        self._running.clear()
        state = "ended" if error is None else "failed" if isinstance(error, Exception) else "stopped"
        reason = " ".join(f"{error or ''}".split())[:500]
        try:
            self._beat(self._snapshot().model_copy(update={"state": state, "reason": reason, "seconds_left": None}))
        finally:
            self._display.close()

    def stage(self, text: str) -> None:
        """A new step of the study begins."""
        with self._lock:
            self._take_in()
            self._stage, self._stage_since = text, time.time()
            self._event(text)

    def tell(self, text: str) -> None:
        """Something happened within a step."""
        with self._lock:
            self._event(text)

    def trial_started(self, recipe: Recipe) -> None:
        """A worker has a trial."""
        with self._lock:
            text = describe(recipe).rsplit(" · ", 1)[0]  # without the precision: all of them are tried
            self._running[recipe.trunk_id] = Running(trunk=recipe.trunk_id, text=text, since=time.time())

    def trial_ended(self, recipe: Recipe, records: list[Record], reason: str) -> None:
        """A trial ended and its records are stored; ``reason`` says why it broke, if it did."""
        with self._lock:
            self._take_in()
            self._running.pop(recipe.trunk_id, None)
            limit = f"/{self._config.budget.trials}" if self._config.budget.trials else ""
            outcome = reason or "  ".join(outcome_of(record) for record in records)
            left = self._seconds_left()
            told = "" if left is None else f"  about {clock(left)} left"
            trunk = describe(recipe).rsplit(" · ", 1)[0]
            self._event(f"trial {self._totals.trials}{limit}  {trunk}  {outcome}{told}")

    @contextmanager
    def listening(self, read: ReadBoard) -> Generator[None]:
        """While this lasts, what workers do is read by ``read``, and never afterwards: Ray may be gone then."""
        self._read_board = read
        try:
            yield
        finally:
            with self._hearing:
                self._read_board = None
            with self._lock:
                self._running.clear()

    def _take_in(self) -> None:
        """Counts what the store has got since the last time."""
        if self._totals.started is None:
            self._totals.started = next((entry.at for entry in self._store.started if entry.at is not None), None)
        for record in itertools.islice(self._store.records.values(), self._seen, None):
            self._totals.add(record, at=time.time())
            self._seen += 1

    def _event(self, text: str) -> None:
        line = f"{clock(time.time() - self._started)}  {text}"
        self._log.append(line)
        self._display.event(line)

    def _beats(self) -> None:
        while not self._done.wait(BEAT):
            with self._hearing:  # not the lock: the driver's thread would wait for the answer too
                told = self._read_board() if self._read_board and self._running else None
            with self._lock:
                self._hear(told or {})
                self._beat(self._snapshot())

    def _beat(self, snapshot: Snapshot) -> None:
        with suppress(
            OSError
        ):  # the disk is full or gone: the study will say so, and what only shows it must not end it
            write_atomically(self._folder / FILE, snapshot.model_dump_json())
        self._display.beat(snapshot, self._totals)

    def _hear(self, told: Activities) -> None:
        for trunk, (activity, age) in told.items():
            if trunk in self._running:
                update = {**asdict(activity), "since": time.time() - age}
                self._running[trunk] = self._running[trunk].model_copy(update=update)

    def _snapshot(self) -> Snapshot:
        budget = self._config.budget
        return Snapshot(
            name=self._config.name,
            pid=os.getpid(),
            host=self._node,
            started=self._started,
            heartbeat=time.time(),
            stage=self._stage,
            stage_since=self._stage_since,
            trials=self._totals.trials,
            trials_limit=budget.trials,
            deadline=None if budget.minutes is None else self._started + 60 * budget.minutes,
            seconds_left=self._seconds_left(),
            running=tuple(self._running.values()),
            log=tuple(self._log),
        )

    def _seconds_left(self) -> float | None:
        """At the pace since the search began, or by the clock; the lesser if both limit it."""
        budget, done, left = self._config.budget, self._totals.trials - self._before, list[float]()
        if budget.trials and done:
            left.append((time.time() - self._stage_since) / done * max(0, budget.trials - self._totals.trials))
        if budget.minutes:
            left.append(max(0.0, self._started + 60 * budget.minutes - time.time()))
        return min(left) if left else None


def outcome_of(record: Record) -> str:
    """How a record ended, in a few words."""
    kind, measured = record.recipe.quantize.kind, record.measurement
    if record.state == "complete" and measured and measured.accuracy:
        return f"{kind} {measured.accuracy.metric} {measured.accuracy.value:.3f} at ×{measured.latency.ratio:.2f}"
    return f"{kind} {record.state}"
