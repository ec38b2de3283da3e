"""Optuna's storage beside the records, for Optuna's dashboard and plots: one trial for each record, never read back.

The search makes its Optuna study from ``records.jsonl`` (ADR 8), so this one may be late, away, or made anew: what is
missing is added, in the records' order, and a record that is there already is not added again.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from search.engine.samplers import OPTUNA_STATES, directions_of, to_distribution, violations
from search.record import BASELINE, Record
from search.results import ROUNDING
from search.storage.database import database_url, open_storage, shown
from search.storage.follow import Following
from search.storage.working import stamp
from search.store import whole_lines
from search.study import StudyConfig
from spaces.space import Space

RECORD = "record"  # the user attribute of a trial that names its record
PATIENCE = 20.0  # seconds, for a storage that does not answer at the end of a search

log = logging.getLogger("search.storage")


@contextmanager
def kept_ledger(config: StudyConfig, folder: Path) -> Generator[None]:
    """Keeps Optuna's storage in step with the records of ``folder``; it being away stops nothing.

    Raises:
        UserError: its URL cannot be used at all.
    """
    following = Following(Ledger(config, folder))
    following.start()
    try:
        yield
    finally:
        if (failure := following.stop(PATIENCE)) is not None:
            text = " ".join(str(failure).split())[:200]
            log.warning("Optuna's storage lacks trials (%s); `resume` or `sync` adds them", text)


class Ledger:
    """The trials of one study in Optuna's storage.

    Raises:
        UserError: the storage's URL cannot be used at all.
    """

    passing = (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError)

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._url = database_url(config.optuna_storage)
        self._space: Space = config.load_space()
        self.name, self.where = f"Optuna's storage {shown(self._url, folder)}", str(folder)
        self._study: optuna.Study | None = None
        self._there: set[str] = set()  # records that have a trial
        self._done = 0  # lines of the records that were gone through
        self._baseline: Record | None = None
        self._seen: object = None

    def due(self) -> bool:
        """Whether there are records that Optuna's storage may lack."""
        return stamp(self._path) != self._seen

    def work(self) -> None:
        """Adds a trial for every record that has none. After a failure it is looked up anew what is there."""
        now = stamp(self._path)
        lines = whole_lines(self._path)
        if not lines:
            return
        try:
            study = self._study = self._study or self._open(lines[0])
            for line in lines[self._done :]:
                self._add(study, Record.model_validate_json(line))
                self._done += 1
        except BaseException:
            self._study = None
            raise
        self._seen = now

    @property
    def _path(self) -> Path:
        return self._folder / "records.jsonl"

    def _add(self, study: optuna.Study, record: Record) -> None:
        if record.id == BASELINE:
            self._baseline = record
            values = record.values(self._config.objectives) or ()
            _describe(study, {"baseline": dict(zip(self._config.objectives, values, strict=False))})
        elif record.id not in self._there:
            study.add_trial(trial_of(record, self._baseline, self._config, self._space))
            self._there.add(record.id)

    def _open(self, first_line: str) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=open_storage(self._url, self._folder),
            study_name=study_name(self._config.name, None if self._url is None else first_line),
            directions=directions_of(self._config.objectives),
            load_if_exists=True,
        )
        if study.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(self._config.objectives))
        _describe(study, {"model": self._config.model, "data": str(self._config.data)})
        self._there = {trial.user_attrs[RECORD] for trial in study.get_trials(deepcopy=False)}
        return study


def _describe(study: optuna.Study, about: dict[str, Any]) -> None:
    """Sets the attributes of the study that are not so already."""
    for name, value in about.items():
        if study.user_attrs.get(name) != value:
            study.set_user_attr(name, value)


def study_name(name: str, first_line: str | None) -> str:
    """What a study is called in Optuna's storage.

    In a database of many studies names must differ, wherever their folders are: so it has a few digits from the first
    record, which no other study has. ``first_line`` is None for a journal of its own.
    """
    return name if first_line is None else f"{name}-{hashlib.sha256(first_line.encode()).hexdigest()[:8]}"


def trial_of(record: Record, baseline: Record | None, config: StudyConfig, space: Space) -> FrozenTrial:
    """A record as a finished trial of Optuna's; a recipe that is not in the space has no parameters.

    Only a finished record has values. A limit that is broken is a constraint above 0, and so is another host than the
    baseline's: such a record is not comparable.
    """
    values = record.values(config.objectives)
    state = OPTUNA_STATES.get(record.state, TrialState.FAIL if values is None else TrialState.COMPLETE)
    asked = space.params(record.recipe) or {}
    attributes = {
        RECORD: record.id,
        "state": record.state,
        "recipe": record.recipe.to_yaml(),
        "artifact": record.artifact.path if record.artifact else None,
        "reason": record.reason or None,
    }
    trial = create_trial(
        state=state,
        values=list(values) if values is not None and state == TrialState.COMPLETE else None,
        params={name: value for name, (value, _) in asked.items()},
        distributions={name: to_distribution(domain) for name, (_, domain) in asked.items()},
        user_attrs={name: value for name, value in attributes.items() if value is not None},
        constraints=_constraints(record, baseline, config),
    )
    if record.at is not None:
        trial.datetime_complete = datetime.fromtimestamp(record.at)
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=sum(record.seconds.values()))
    return trial


def _constraints(record: Record, baseline: Record | None, config: StudyConfig) -> dict[str, float]:
    broken = violations(record, baseline, config.constraints)
    found = {name: 0.0 if abs(value) <= ROUNDING else value for name, value in broken.items()}
    measured, reference = record.measurement, baseline.measurement if baseline else None
    if measured and reference and measured.host != reference.host:
        found["another host"] = 1.0
    return found
