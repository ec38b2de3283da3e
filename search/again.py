"""Measures the front of a study again, twice and until every near tie is decided or as well known as it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from search.artifact import MeasureLatency
from search.errors import MeasurementError, UserError
from search.final import Final, Finals
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.noise import differences, near_ties, possible_members
from search.record import Objective, Record
from search.results import front_records, kept_records
from search.runtimes.session import Runtime
from search.store import Records
from search.study import FinalSettings, StudyConfig
from search.target import Target
from search.tasks.accuracy import Accuracy

TimeFile = Callable[[Record], Latency]
Validate = Callable[[Record, str], Accuracy]  # (record, split)

PASSES = 2  # undisturbed ones, over all files: what the host is like for minutes is not in all that is known of one


def measure_again(config: StudyConfig, store: Records, finals: Finals, time_file: TimeFile, validate: Validate) -> None:
    """Times what may be on the front again, near ties several times; adds what is found to ``finals``.

    Records of older versions, which say nothing about how far their accuracy depends on the images, are validated
    again too. Otherwise the search has used the whole validation split already, and would find the same number.

    Args:
        config: the study.
        store: what the search saw, on the target that is measured.
        finals: what was measured there after it; nothing of that is measured again.
        time_file: times a record's file; what it refuses keeps the figures of the search.
        validate: measures a record's accuracy on a split.

    Raises:
        UserError: what is no file's fault: nothing can be measured on the target, or nothing measures.
    """
    if (baseline := store.baseline) is not None and not _resampled(finals.applied(store).records[baseline.id]):
        finals.append(Final(record_id=baseline.id, accuracy=validate(baseline, "val")))
    while due := due_records(config, finals.applied(store), finals):
        for record in due:
            try:
                if not _resampled(record):
                    finals.append(Final(record_id=record.id, accuracy=validate(record, "val")))
                finals.append(Final(record_id=record.id, latency=time_file(record)))
            except MeasurementError as error:
                finals.append(Final(record_id=record.id, reason=str(error)))


def due_records(config: StudyConfig, records: Records, finals: Finals) -> list[Record]:
    """The records to time next, with what is known by now; none when all is decided, or not worth more.

    First what was not timed after the search and may be on the front, or makes a member's place doubtful, up to the
    limit of the study: it would not be fair to compare it by the figures of another day. Then the same once more, and
    what was disturbed. Then the near ties. All up to the study's number of rounds: what is a near tie still is told
    apart by nothing that is worth its time.
    """
    settings, objectives = config.final, config.objectives
    if settings is None:
        return []
    kept, front = kept_records(config, records), front_records(config, records)
    possible = possible_members(kept, objectives)
    candidates = {record.id: record for record in [*possible, *_doubtful(kept, front, objectives)]}
    left = settings.records - len(finals.timed)
    if new := [record for name, record in candidates.items() if name not in finals.timed][: max(0, left)]:
        return new
    failed = finals.failures()
    more = [r for n, r in candidates.items() if n not in failed and 0 < finals.timed[n] < settings.rounds]
    near = {record.id for record in near_ties(possible, objectives)}
    return [r for r in more if finals.calm[r.id] < PASSES] or [r for r in more if r.id in near]


def _doubtful(kept: list[Record], front: list[Record], objectives: tuple[Objective, ...]) -> list[Record]:
    """What cannot be told apart from a member of the front, or may dominate it."""
    if not front:
        return []
    found = differences(kept, front, objectives)
    return [kept[row] for row in np.flatnonzero(np.any(found.ties | found.may_dominate, axis=1))]


def _resampled(record: Record) -> bool:
    """Whether it is known how far the record's accuracy depends on the images."""
    measured = record.measurement
    return measured is not None and measured.accuracy is not None and bool(measured.accuracy.resampled)


def measure_test(config: StudyConfig, store: Records, finals: Finals, validate: Validate) -> None:
    """Measures the baseline and the members of the final front on the test split, each once; or notes why it cannot."""
    records = finals.applied(store)
    baseline = [records.baseline] if records.baseline else []
    for record in [*baseline, *front_records(config, records)]:
        if record.measurement is not None and record.measurement.test is None:
            try:
                finals.append(Final(record_id=record.id, accuracy=validate(record, "test")))
            except UserError as error:
                finals.append(Final(record_id=record.id, split="test", reason=str(error)))


def give_up(config: StudyConfig, store: Records, finals: Finals, reason: str) -> None:
    """Notes ``reason`` for every record that would be timed next; the next ``finish`` tries again."""
    for record in due_records(config, finals.applied(store), finals):
        finals.append(Final(record_id=record.id, reason=reason))


def patient(target: Target, settings: FinalSettings) -> Effort:
    """The target's effort with more runs; so many more make the interval of a ratio narrower by their root."""
    factor, usual = settings.factor, target.effort()
    precision = usual.precision / math.sqrt(factor)
    return Effort(runs=factor * usual.runs, precision=precision, seconds=factor * usual.seconds)


def time_by(latency: MeasureLatency, folder: Path, effort: Effort) -> TimeFile:
    """What times records' files by ``latency``."""

    def time_file(record: Record) -> Latency:
        assert record.artifact is not None
        return latency(folder / record.artifact.path, effort)

    return time_file


def validate_on(data: Path, folder: Path, runtime: Runtime) -> Validate:
    """What measures records' files on a split of a study's view of its data; a file must be there."""
    from search.measure.accuracy import measure_accuracy

    def validate(record: Record, split: str) -> Accuracy:
        assert record.artifact is not None
        file, image_size = folder / record.artifact.path, record.recipe.image_size
        if not file.exists():
            raise MeasurementError(f"there is no {file}; results from elsewhere may come without their model files")
        return measure_accuracy(file, data, split=split, image_size=image_size, runtime=runtime)

    return validate
