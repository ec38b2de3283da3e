"""The front of a study while it grows, one finished record at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.front import hypervolume
from search.record import Objective, Record, losses

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A finished record with its objectives as losses."""

    record: Record
    losses: tuple[float, ...]


class Archive:
    """Finished records that no other one dominates; of equal ones the first is kept.

    Args:
        objectives: accuracy and at least one of latency and size.
    """

    def __init__(self, objectives: tuple[Objective, ...]) -> None:
        self.objectives = objectives
        self.front: list[Entry] = []
        self._corner = [0.0 if objective == "accuracy" else 1.0 for objective in objectives]

    def add(self, record: Record) -> bool:
        """Whether the record joined the front; one that is not complete never does."""
        values = record.values(self.objectives)
        if values is None:
            return False
        new = losses(values, self.objectives)
        if any(all(a <= b for a, b in zip(entry.losses, new, strict=True)) for entry in self.front):
            return False
        self.front = [e for e in self.front if not all(a <= b for a, b in zip(new, e.losses, strict=True))]
        self.front.append(Entry(record=record, losses=new))
        return True

    def hypervolume(self) -> float:
        """The volume between the front and accuracy 0 at the baseline's own latency and size."""
        return hypervolume([entry.losses for entry in self.front], self._corner) if self.front else 0.0

    def accuracy(self) -> Floats:
        """The front's accuracies, shape (front,)."""
        column = self.objectives.index("accuracy")
        return np.array([-entry.losses[column] for entry in self.front], dtype=np.float64)

    def known(self) -> Floats:
        """The front's other objectives, shape (front, objectives - 1), in their order."""
        columns = [index for index, objective in enumerate(self.objectives) if objective != "accuracy"]
        return np.array([[entry.losses[c] for c in columns] for entry in self.front], dtype=np.float64).reshape(
            len(self.front), len(columns)
        )
