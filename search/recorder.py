"""The driver's ear on Ray Tune: stores each trial's records, and their files before them, the moment that it ends."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.tune import Callback

from search.artifact import install_artifact
from search.errors import FaultError
from search.faults import gone, sees, watched
from search.measure.parcel import Parcel
from search.record import Record
from search.store import Store
from search.trial import Task

NODE_DIED = "node has died"  # as Ray says of an actor; its error has no field for it


class Recorder(Callback):
    """Writes records as trials report them, and failed ones for trials that broke.

    Ray Tune calls this before the searcher hears of the end of the trial, so the searcher reads what is stored.
    ``fault`` is what ends the study. It is raised at Tune's next step, since Tune swallows what some calls raise.

    Args:
        store: where records go.
        progress: hears of every trial that ended.
        folder: the study folder, where artifacts go.
        token: of the folder.
    """

    def __init__(self, store: Store, progress: Any, folder: Path, token: str = "") -> None:
        self._store, self._progress, self._folder, self._token = store, progress, folder, token
        self._waiting: dict[str, list[Record]] = {}  # for their checkpoint, by trial
        self.fault: FaultError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks into a snapshot that is never read."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tells that a worker has the trial, also one that is tried again."""
        self._progress.trial_started(_task(trial).leaves[0])

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Ends the search if the study cannot go on.

        Raises:
            FaultError: why.
        """
        if self.fault is None and not sees(self._folder, self._token):
            self.fault = gone(self._folder)
        if self.fault is not None:
            raise self.fault

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Stores the records of a trial that ended or was stopped at a rung, unless their files are yet to come."""
        if "fault" in result:
            self.fault = self.fault or FaultError(result["fault"])
        reported = result.get("records") or (result.get("rung") if result.get("done") else None)
        if reported is None:
            return
        records = [Record.model_validate(content) for content in json.loads(reported)]
        delivered = result.pop("delivered", None)  # not to stay in Tune's memory and snapshots
        if isinstance(delivered, Parcel):
            with tempfile.TemporaryDirectory() as folder:
                self._end(trial, records, delivered.unpack(Path(folder)))
        elif delivered:
            self._waiting[trial.trial_id] = records
        else:
            self._end(trial, records, None)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """Stores the records that came before, with the files of their checkpoint, which goes."""
        records = self._waiting.pop(trial.trial_id)
        with checkpoint.as_directory() as folder:
            self._end(trial, records, Path(folder))
        checkpoint.filesystem.delete_dir(checkpoint.path)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Stores that every leaf of the trial failed, with the last line of its error.

        A trial whose nodes died time and again is left without records, for ``resume`` to try: another recipe would
        have fared no better. A worker that died by itself may have been killed for the memory that its recipe takes.
        """
        text = Path(trial.error_file).read_text(encoding="utf-8").strip() if trial.error_file else ""
        if NODE_DIED in text:
            trunk = _task(trial).leaves[0]
            self._progress.trial_ended(trunk, [], "lost with its nodes; resume tries it again")
            return
        reason = (text.splitlines()[-1] if text else "the worker died").strip()[:500]
        leaves = _task(trial).leaves
        self._end(trial, [Record(id=leaf.id, recipe=leaf, state="failed", reason=reason) for leaf in leaves], None)

    def _end(self, trial: Any, records: list[Record], delivered: Path | None) -> None:
        """Puts the files in their place, then the records into the store: a record names no file that is not there.

        After a kill between the two, the trial is done again, and what it brings takes the place of the files.
        """
        with self._keeping_fault():
            if not sees(self._folder, self._token):
                raise gone(self._folder)
            with watched([self._folder], self._token):
                for record in records:
                    if delivered and record.artifact is not None and record.id not in self._store.records:
                        install_artifact(record.id, delivered, folder=self._folder)
                self._store.append(records)
            broken = all(record.state == "failed" for record in records)
            self._progress.trial_ended(_task(trial).leaves[0], records, records[0].reason if broken else "")

    @contextmanager
    def _keeping_fault(self) -> Generator[None]:
        try:
            yield
        except FaultError as fault:
            self.fault = self.fault or fault


def _task(trial: Any) -> Task:
    return Task.model_validate_json(trial.config["task"])
