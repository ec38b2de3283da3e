"""Measures the front of a study again, until every near tie is decided or as well known as it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from search.final import Final, Finals
from search.measure.apart import Apart
from search.measure.host import host_info
from search.measure.latency import Latency, MeasurementError
from search.noise import near_ties, possible_members
from search.record import Record
from search.results import front_records, kept_records
from search.store import Records
from search.study import FinalSettings, StudyConfig, Target
from search.tasks.accuracy import Accuracy

TimeFile = Callable[[Record], Latency]
Validate = Callable[[Record, str], Accuracy]  # (record, split)


def measure_again(config: StudyConfig, store: Records, finals: Finals, time_file: TimeFile, validate: Validate) -> None:
    """Times what may be on the front again, near ties several times; adds what is found to ``finals``.

    Records of older versions, which say nothing about how far their accuracy depends on the images, are validated
    again too. Otherwise the search has used the whole validation split already, and would find the same number.

    Args:
        config: the study.
        store: what the search saw.
        finals: what was measured after it; nothing of that is measured again.
        time_file: times a record's file; what it refuses keeps the figures of the search.
        validate: measures a record's accuracy on a split.
    """
    host = host_info().id
    while due := due_records(config, finals.applied(store), finals):
        for record in due:
            try:
                finals.append(Final(record_id=record.id, host=host, latency=time_file(record)))
            except MeasurementError as error:
                finals.append(Final(record_id=record.id, host=host, reason=str(error)))
    records = finals.applied(store)
    possible = possible_members(kept_records(config, records), config.objectives)
    for record in [*([records.baseline] if records.baseline else []), *possible]:
        assert record.measurement is not None and record.measurement.accuracy is not None
        if not record.measurement.accuracy.resampled and record.id not in finals.failures():
            finals.append(Final(record_id=record.id, host=host, accuracy=validate(record, "val")))


def due_records(config: StudyConfig, records: Records, finals: Finals) -> list[Record]:
    """The records to time next, with what is known by now; none when all is decided, or not worth more.

    First what may be on the front and was not timed after the search, up to the limit of the study. Then the near ties,
    each up to the study's number of rounds: what is one still is told apart by nothing that is worth its time.
    """
    settings, objectives = config.final, config.objectives
    if settings is None:
        return []
    possible = possible_members(kept_records(config, records), objectives)
    left = settings.records - len({final.record_id for final in finals.all if final.accuracy is None})
    if new := [record for record in possible if not finals.timed(record.id)][: max(0, left)]:
        return new
    return [r for r in near_ties(possible, objectives) if 0 < finals.timed(r.id) < settings.rounds]


def measure_test(config: StudyConfig, store: Records, finals: Finals, validate: Validate) -> None:
    """Measures the baseline and the members of the final front on the test split, each once."""
    records, host = finals.applied(store), host_info().id
    baseline = [records.baseline] if records.baseline else []
    for record in [*baseline, *front_records(config, records)]:
        if record.measurement is not None and record.measurement.test is None:
            finals.append(Final(record_id=record.id, host=host, accuracy=validate(record, "test")))


def patient(target: Target, settings: FinalSettings) -> Target:
    """The target with more runs; so many more make the interval of a ratio narrower by their root."""
    factor = settings.factor
    more = {"runs": factor * target.runs, "seconds": factor * target.seconds}
    return target.model_copy(update={**more, "precision": target.precision / math.sqrt(factor)})


def time_apart(apart: Apart, folder: Path, baseline: Path, target: Target) -> TimeFile:
    """What times records' files beside the baseline's, in a process of its own."""

    def time_file(record: Record) -> Latency:
        assert record.artifact is not None
        return apart.measure(folder / record.artifact.path, baseline, target, target.runs)

    return time_file


def validate_on(data: Path, folder: Path, threads: int) -> Validate:
    """What measures records' files on a split of a study's view of its data."""
    from search.measure.accuracy import measure_accuracy

    def validate(record: Record, split: str) -> Accuracy:
        assert record.artifact is not None
        file, image_size = folder / record.artifact.path, record.recipe.image_size
        return measure_accuracy(file, data, split=split, image_size=image_size, threads=threads)

    return validate
