"""Decides, before any training, that a recipe is not worth it: latency and size do not depend on the weights.

A leaf is screened where it could not join the front even if it lost no accuracy. A whole trunk is screened where, with
the latency and size that were measured, it can be expected to add less than another recipe that could be tried instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from search.engine.gain import expected_gain
from search.measure.latency import Latency
from search.record import Objective
from search.study import Constraints

Known = tuple[float, float]  # latency and size ratio


class Rival(BaseModel):
    """What one finished record reached."""

    model_config = ConfigDict(frozen=True)

    id: str
    accuracy: float
    latency: float
    size: float


class Bar(BaseModel):
    """What a recipe has to beat: the best accuracy of the baseline and all records, the front, and the limits."""

    model_config = ConfigDict(frozen=True)

    reachable_accuracy: float
    rivals: tuple[Rival, ...] = ()
    constraints: Constraints = Constraints()
    objectives: tuple[Objective, ...] = ("accuracy", "latency")


class Expectation(BaseModel):
    """What was expected of a trunk when it was proposed: its worth is found again from what was measured."""

    model_config = ConfigDict(frozen=True)

    accuracy: tuple[tuple[float, ...], ...]  # (leaves, outcomes), equally likely; a column is one outcome of all
    front: tuple[tuple[float, ...], ...]  # (members, objectives): accuracy, and the other objectives to be beaten
    floor: float  # accuracies below it count for nothing
    least: float  # the hypervolume that the best other candidate can be expected to add for as many epochs


def why_not_worth(measured: Sequence[Known], expected: Expectation, objectives: Sequence[Objective]) -> str | None:
    """Why a trunk is not worth its training now that its leaves were ``measured``, in order; None if it is.

    Args:
        measured: latency and size of each leaf, as ratios to the baseline.
        expected: what was expected of the same leaves.
        objectives: the study's.
    """
    columns = [("latency", "size").index(objective) for objective in objectives if objective != "accuracy"]
    gain = expected_gain(
        [member[0] for member in expected.front],
        [member[1:] for member in expected.front],
        accuracy=expected.accuracy,
        known=[[own[column] for column in columns] for own in measured],
        corner=[1.0] * len(columns),
        floor=expected.floor,
    )
    if gain >= expected.least:
        return None
    return f"with this latency and size it would add {gain:.2g} of hypervolume, another recipe {expected.least:.2g}"


def why_screened(latency: Latency, *, size_bytes: int, size_ratio: float, bar: Bar) -> str | None:
    """Why a recipe with this latency and size cannot join the front, or None if it could.

    The recipe is given every benefit of the doubt: the low end of its latency interval, and the best accuracy that
    is known to be reachable. The baseline's would not do: a baseline that can still be trained is soon beaten.
    """
    limits = bar.constraints
    checks: Sequence[tuple[str, float, float | None]] = (
        ("latency ratio", latency.ratio_low, limits.max_latency_ratio),
        ("latency in ms", latency.quiet_ms, limits.max_latency_ms),
        ("size in MB", size_bytes / 1e6, limits.max_size_mb),
    )
    for name, value, limit in checks:
        if limit is not None and value > limit:
            return f"{name} {value:.3g} is over the limit {limit:g}"
    for rival in bar.rivals:
        faster = "latency" not in bar.objectives or rival.latency <= latency.ratio_low
        smaller = "size" not in bar.objectives or rival.size <= size_ratio
        if rival.accuracy >= bar.reachable_accuracy and faster and smaller:
            ratios = {"latency": (rival.latency, latency.ratio), "size": (rival.size, size_ratio)}
            compared = [
                f"{name} (ratio {theirs:.3g} against {ours:.3g})"
                for name, (theirs, ours) in ratios.items()
                if name in bar.objectives
            ]
            return f"record {rival.id} is no worse in {' and '.join(compared)} and has the best accuracy so far"
    return None
