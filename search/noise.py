"""What measurements can tell apart: better, worse, or neither, for each objective; dominance that noise cannot undo.

- *Accuracy*: two models are compared on the same resampled images (``search.tasks.resample``), and told apart if the
  95 % interval of their difference leaves out 0. Where resamples are missing, as in records of older versions, the two
  intervals are taken as independent, and as nothing where they are not known.
- *Latency*: ratios are told apart if their intervals do not overlap. That is stricter than 95 %, which pays for looking
  several times, and for what one measurement does not know about another.
- *Size* is exact. Less than a percent is no difference to anyone.

Pure functions of records; arrays have the shape (objectives, n, k): n records beside k others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.front import non_dominated
from search.measure.latency import Latency
from search.record import Measurement, Objective, Record, losses
from search.tasks.accuracy import Accuracy
from search.tasks.resample import RESAMPLES, Z, standard_error, unpacked

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SIZE_STEP = float(np.log(1.01))
POINT = 0.01  # of accuracy; less is the same if it is known that it is less


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How much worse each of n records is than each of k others, and by how much that may be off.

    Latencies and sizes are compared by the logarithm of their quotient. ``least`` is (objectives, 1, 1): smaller
    differences are none.
    """

    value: Floats
    noise: Floats
    least: Floats

    @property
    def better(self) -> Bools:
        """Where the record is better, surely."""
        return self.value < -np.maximum(self.noise, self.least)

    @property
    def worse(self) -> Bools:
        """Where the record is worse, surely."""
        return self.value > np.maximum(self.noise, self.least)

    @property
    def ties(self) -> Bools:
        """(n, k): told apart in no objective."""
        return ~np.any(self.better | self.worse, axis=0)

    @property
    def may_dominate(self) -> Bools:
        """(n, k): the record is surely better in an objective, and surely worse in none."""
        return np.any(self.better, axis=0) & ~np.any(self.worse, axis=0)

    @property
    def surely_dominated(self) -> Bools:
        """(n, k): the record is worse or exactly equal in every objective, surely, and worse in at least one."""
        return np.all(self.value >= self.noise, axis=0) & np.any(self.worse, axis=0)


def differences(records: Sequence[Record], others: Sequence[Record], objectives: Sequence[Objective]) -> Differences:
    """Compares complete ``records`` with complete ``others``."""
    ours, theirs = [_measured(record) for record in records], [_measured(other) for other in others]
    value, noise, least = [], [], []
    for objective in objectives:
        match objective:
            case "accuracy":
                off, own = accuracy_differences([_accuracy(m) for m in ours], [_accuracy(m) for m in theirs])
                value, noise, least = [*value, -off], [*noise, own], [*least, 0.0]
            case "latency":
                off, own = latency_differences([m.latency for m in ours], [m.latency for m in theirs])
                value, noise, least = [*value, off], [*noise, own], [*least, 0.0]
            case "size":
                off = np.subtract.outer(*(np.log([m.size_ratio for m in side]) for side in (ours, theirs)))
                value, noise, least = [*value, off], [*noise, np.zeros_like(off)], [*least, SIZE_STEP]
    return Differences(value=np.array(value), noise=np.array(noise), least=np.array(least).reshape(-1, 1, 1))


def accuracy_differences(ours: Sequence[Accuracy], theirs: Sequence[Accuracy]) -> tuple[Floats, Floats]:
    """How much more accurate each of ours is than each of theirs, and half of the 95 % interval; (n, k) each."""
    values = np.subtract.outer([own.value for own in ours], [other.value for other in theirs])
    halves = np.hypot.outer([_half(own) for own in ours], [_half(other) for other in theirs])
    images = np.array([own.images if own.resampled else 0 for own in ours])
    resampled = np.array([unpacked(own.resampled) if own.resampled else np.zeros(RESAMPLES) for own in ours])
    for column, other in enumerate(theirs):
        if other.resampled:
            paired = Z * standard_error(resampled - unpacked(other.resampled), other.images)
            halves[:, column] = np.where(images == other.images, paired, halves[:, column])
    return values, halves


def latency_differences(ours: Sequence[Latency], theirs: Sequence[Latency]) -> tuple[Floats, Floats]:
    """The logarithm of each of our ratios over each of theirs, and how far apart they must be for their intervals not
    to overlap; (n, k) each."""
    (low, middle, high), (other_low, other_middle, other_high) = (
        np.log([[latency.ratio_low, latency.ratio, latency.ratio_high] for latency in side]).reshape(-1, 3).T
        for side in (ours, theirs)
    )
    values = np.subtract.outer(middle, other_middle)
    if_faster = np.add.outer(high - middle, other_middle - other_low)
    if_slower = np.add.outer(middle - low, other_high - other_middle)
    return values, np.where(values < 0, if_faster, if_slower)


def without_copies(records: Sequence[Record], objectives: Sequence[Objective]) -> list[Record]:
    """The records, without those that are the same as a smaller one that stays.

    Two are the same if they are told apart in nothing and it is known that their accuracies differ by less than a
    point: not knowing which of two is better is no reason to hide one.
    """
    found = differences(records, records, objectives)
    same = found.ties
    for objective, value, noise in zip(objectives, found.value, found.noise, strict=True):
        if objective == "accuracy":
            same = same & (np.abs(value) + noise <= POINT)
    kept: list[int] = []
    for index in sorted(range(len(records)), key=lambda index: _measured(records[index]).size_bytes):
        if not same[index, kept].any():
            kept.append(index)
    return [records[index] for index in sorted(kept)]


def possible_members(records: Sequence[Record], objectives: tuple[Objective, ...]) -> list[Record]:
    """The records that are on the front if their own latency is at the low end of its interval, and all others' at the
    high end."""
    low, high = _ends(records, objectives)
    if not len(low):
        return []
    out = np.any(_dominated_by(low, high[non_dominated(high)]), axis=1)
    return [record for record, dominated in zip(records, out, strict=True) if not dominated]


def near_ties(possible: Sequence[Record], objectives: tuple[Objective, ...]) -> list[Record]:
    """What has to be timed again: the possible members that others would dominate if the latencies were elsewhere in
    their intervals, and these others. (Whatever could dominate a possible member is possible too.)
    """
    low, high = _ends(possible, objectives)
    if not len(low):
        return []
    dominated = _dominated_by(high, low)
    np.fill_diagonal(dominated, False)
    involved = np.any(dominated, axis=1) | np.any(dominated, axis=0)
    return [record for record, own in zip(possible, involved, strict=True) if own]


def _ends(records: Sequence[Record], objectives: tuple[Objective, ...]) -> tuple[Floats, Floats]:
    """The records' losses with their latencies at the low and at the high end, (n, objectives) each."""
    points = np.array([losses(record.values(objectives) or (), objectives) for record in records])
    low, high = points.copy(), points.copy()
    if "latency" in objectives and len(points):
        column = objectives.index("latency")
        low[:, column] = [_measured(record).latency.ratio_low for record in records]
        high[:, column] = [_measured(record).latency.ratio_high for record in records]
    return low, high


def _dominated_by(points: Floats, others: Floats) -> Bools:
    """(n, k): whether each point is dominated by each of the others."""
    apart = points[:, None, :] - others[None, :, :]
    return np.all(apart >= 0, axis=2) & np.any(apart > 0, axis=2)


def _measured(record: Record) -> Measurement:
    assert record.measurement is not None
    return record.measurement


def _accuracy(measured: Measurement) -> Accuracy:
    assert measured.accuracy is not None
    return measured.accuracy


def _half(accuracy: Accuracy) -> float:
    """Half of an accuracy's own interval; 0 where it is not known."""
    return 0.0 if accuracy.low is None or accuracy.high is None else (accuracy.high - accuracy.low) / 2
