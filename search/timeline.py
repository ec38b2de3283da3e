"""What a study did over time, from its records: how the hypervolume grew, and what trials cost beside their work."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from search.engine.archive import Archive
from search.engine.length import trained_epochs
from search.record import Record
from search.results import feasible
from search.store import Records
from search.study import StudyConfig


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How far a study was when a trial ended; ``minutes`` since the first trial was handed out."""

    minutes: float
    trials: int
    epochs: int
    hypervolume: float


class Growth:
    """How a study grows, one record after the other, in the order in which they were stored.

    ``archive`` is the front so far, ``moments`` has one for each trial: records of one trunk that follow each other.
    """

    def __init__(self, config: StudyConfig) -> None:
        self.archive, self.moments = Archive(config.objectives), list[Moment]()
        self._leaves: list[Record] = []  # of the last trial
        self._epochs = 0  # of those before it

    def add(self, record: Record, within: bool, minutes: float) -> None:
        """Takes in a record; ``within`` says whether it may join the front, ``minutes`` when it ended."""
        joined = within and self.archive.add(record)
        volume = self.archive.hypervolume() if joined else self.moments[-1].hypervolume if self.moments else 0.0
        if self._leaves and self._leaves[-1].recipe.trunk_id == record.recipe.trunk_id:
            self.moments.pop()
        else:
            self._epochs += trained_epochs(self._leaves) if self._leaves else 0
            self._leaves = []
        self._leaves.append(record)
        epochs = self._epochs + trained_epochs(self._leaves)
        self.moments.append(Moment(minutes=minutes, trials=len(self.moments) + 1, epochs=epochs, hypervolume=volume))


def growth(config: StudyConfig, store: Records) -> list[Moment]:
    """A moment for each trial, in the order of their ends. Empty for records without times."""
    found = Growth(config)
    start = min((entry.at for entry in store.started if entry.at is not None), default=None)
    for record in store.searched:
        if start is None or record.at is None:
            return []
        found.add(record, feasible(record, store.baseline, config), (record.at - start) / 60)
    return found.moments


def overheads(store: Records) -> list[float]:
    """Seconds of each trial that no step of it took: from being handed out until its records were on the disk.

    Trials that were cut off and handed out again count from the last time.
    """
    handed = {entry.recipe.trunk_id: entry.at for entry in store.started}
    found: list[float] = []
    for leaves in _trials(store):
        ended, began = leaves[0].at, handed.get(leaves[0].recipe.trunk_id)
        if ended is not None and began is not None and leaves[0].seconds:
            found.append(ended - began - sum(leaves[0].seconds.values()))
    return found


def _trials(store: Records) -> list[list[Record]]:
    """The records of each trial: those of one trunk, which are stored together."""
    return [list(own) for _, own in itertools.groupby(store.searched, key=lambda record: record.recipe.trunk_id)]
