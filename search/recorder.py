"""The driver's ear on Ray Tune: stores each trial's records the moment that it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray.tune import Callback

from search.record import Record
from search.store import Store
from search.trial import Task


class Recorder(Callback):
    """Writes records as trials report them, and failed ones for trials that broke.

    Ray Tune calls this before the searcher hears of the end of the trial, so the searcher reads what is stored.
    """

    def __init__(self, store: Store, progress: Any) -> None:
        self._store, self._progress = store, progress

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into a snapshot that is never read."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tells that a worker has the trial, also one that is tried again."""
        self._progress.trial_started(_task(trial).leaves[0])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Stores the records of a trial that ended or was stopped at a rung; their artifacts are in place already."""
        reported = result.get("records") or (result.get("rung") if result.get("done") else None)
        if reported is None:
            return
        records = [Record.model_validate(content) for content in json.loads(reported)]
        broken = all(record.state == "failed" for record in records)
        self._end(trial, records, records[0].reason if broken else "")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Stores that every leaf of the trial failed, with the last line of its error."""
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines() if trial.error_file else []
        reason = (lines[-1] if lines else "the worker died").strip()[:500]
        task = _task(trial)
        self._end(
            trial,
            [Record(id=leaf.id, recipe=leaf, state="failed", reason=reason) for leaf in task.leaves],
            reason,
        )

    def _end(self, trial: Any, records: list[Record], reason: str) -> None:
        self._store.append(records)
        trunk = _task(trial).leaves[0]
        self._progress.trial_ended(trunk, records, reason)


def _task(trial: Any) -> Task:
    return Task.model_validate_json(trial.config["task"])
