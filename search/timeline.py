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


def growth(config: StudyConfig, store: Records) -> list[Moment]:
    """A moment for each trial, in the order of their ends. Empty for records without times."""
    archive, moments, epochs = Archive(config.objectives), list[Moment](), 0
    start = min((entry.at for entry in store.started if entry.at is not None), default=None)
    for number, leaves in enumerate(_trials(store), start=1):
        if start is None or leaves[0].at is None:
            return []
        epochs += trained_epochs(leaves)
        for record in leaves:
            if feasible(record, store.baseline, config):
                archive.add(record)
        moments.append(
            Moment(minutes=(leaves[0].at - start) / 60, trials=number, epochs=epochs, hypervolume=archive.hypervolume())
        )
    return moments


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
