"""What the trials of recorded studies did with their time, apart from waiting."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.errors import UserError
from search.measure.latency import Latency
from search.record import Measurement, Record
from search.results import open_study

QUICK = 4  # a file is timed with so many times fewer runs before training than after


@dataclass(frozen=True, kw_only=True)
class Life:
    """One trial: seconds of its own work before training, in training and after, and how many files it had timed.

    ``quick`` files are timed before training, ``full`` ones after; ``rungs`` is how often its training was looked at.
    """

    before: float
    train: float
    after: float
    quick: int
    full: int
    rungs: int


def read_lives(folders: Sequence[Path]) -> list[Life]:
    """The trials of study folders that tell how long each step took.

    Raises:
        UserError: there are none.
    """
    records = [record for folder in folders for record in open_study(folder)[1].searched]
    trunks = [list(own) for _, own in itertools.groupby(records, key=lambda record: record.recipe.trunk_id)]
    found = [life_of(trunk) for trunk in trunks if "screen" in trunk[0].seconds]
    if not found:
        raise UserError(f"--records: no trial in {', '.join(map(str, folders))} tells how long its steps took")
    return found


def life_of(leaves: Sequence[Record]) -> Life:
    """The life of a trial by the records of its leaves.

    The time in which its files were timed is taken out of the recorded steps: where it is simulated, another bench does
    that, and how long is given to the simulation.
    """
    seconds, trained = leaves[0].seconds, "measure" in leaves[0].seconds
    measured = [leaf.measurement for leaf in leaves if leaf.measurement is not None]
    timed = sum(_timed(measurement.latency) for measurement in measured)
    screened = seconds["screen"] > 0
    quick = (timed / QUICK if trained else timed) if screened else 0.0
    return Life(
        before=max(0.0, seconds.get("shape", 0.0) + seconds["screen"] - quick),
        train=seconds.get("train", 0.0),
        after=max(0.0, seconds.get("measure", 0.0) - timed) if trained else 0.0,
        quick=len(leaves) if screened else 0,
        full=sum(1 for leaf in leaves if leaf.state == "complete"),
        rungs=max(0, len(leaves[0].curve) - 1),
    )


def _timed(latency: Latency) -> float:
    """Seconds in which the runs of a measurement took place."""
    return latency.runs * (latency.p50_ms + latency.baseline_p50_ms) / 1000


def measurements(folders: Sequence[Path]) -> list[Measurement]:
    """What complete records of study folders measured."""
    records = [record for folder in folders for record in open_study(folder)[1].searched]
    return [r.measurement for r in records if r.state == "complete" and r.measurement is not None]
