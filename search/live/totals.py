"""What is shown of the records of a study, kept up with one record at a time."""

from __future__ import annotations

from collections import Counter

from search.record import BASELINE, Record
from search.results import feasible
from search.study import StudyConfig
from search.timeline import Growth, Moment

Point = tuple[float, float]  # latency as a ratio to the baseline's, accuracy


class Totals:
    """Counts, points and the front of the records that were added.

    Args:
        config: the study's.
        started: when its first trial was handed out, in seconds since 1970; None if that is not known.
    """

    def __init__(self, config: StudyConfig, started: float | None = None) -> None:
        self.started = started
        self.baseline: Record | None = None
        self.states: Counter[str] = Counter()
        self.points: list[Point] = []  # of finished records that keep the study's limits
        self.version = 0  # goes up with each record
        self._config, self._growth = config, Growth(config)
        self._trunks: set[str] = set()

    def add(self, record: Record, at: float | None = None) -> bool:
        """Whether the record, which may be the baseline, keeps the limits of the study.

        ``at`` is when it ended, if the record does not say so itself.
        """
        self.version += 1
        if record.id == BASELINE:
            self.baseline = record
            return False
        self.states[record.state] += 1
        self._trunks.add(record.recipe.trunk_id)
        within = feasible(record, self.baseline, self._config)
        ended = record.at or at
        minutes = 0.0 if self.started is None or ended is None else (ended - self.started) / 60
        self._growth.add(record, within, minutes)
        if within:
            self.points.append(point(record))
        return within

    @property
    def trials(self) -> int:
        """How many trials ended."""
        return len(self._trunks)

    @property
    def moments(self) -> list[Moment]:
        """How far the study was when each trial ended."""
        return self._growth.moments

    @property
    def hypervolume(self) -> float:
        """That of the front so far, as in ``search.results.found_on``."""
        return self.moments[-1].hypervolume if self.moments else 0.0

    @property
    def front(self) -> list[Record]:
        """The records that no other one dominates, fastest first."""
        return sorted((entry.record for entry in self._growth.archive.front), key=lambda record: point(record)[0])


def point(record: Record) -> Point:
    """Latency ratio and accuracy of a finished record."""
    assert record.measurement and record.measurement.accuracy
    return record.measurement.latency.ratio, record.measurement.accuracy.value
