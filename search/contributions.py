"""What each part of a picked recipe brings: rows and differences, made from records that were measured.

Pure: nothing is measured here (search/ablation.py does). A record stands for its recipe, so rows follow the picks:
when a pick changes, its rows are those of the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from search.engine.length import total_epochs
from search.front import PICKS
from search.record import BASELINE, Objective, Record, losses
from search.results import choose
from spaces.ablation import switched_off
from spaces.describe import describe
from spaces.recipe import STRIDE, Export, Int8Static, Recipe

STOCK = "stock-"  # begins the record ids of stock models, whose recipe is the plain one
INT8 = "int8 alone"  # a rival's name


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Values(_Frozen):
    """What was measured: accuracy on the validation split, ratios to the study's FP32 baseline file, bytes."""

    accuracy: float
    latency_ratio: float
    latency_ratio_ci: tuple[float, float]
    size_ratio: float
    size_bytes: int
    host: str


class Brought(_Frozen):
    """The pick set against the same recipe without a part: the difference in accuracy, and factors.

    ``latency`` 0.5 says that the part halves the latency; its interval is what both measurements' own allow. None
    where they were taken on different hosts.
    """

    accuracy: float
    latency: float | None
    latency_ci: tuple[float, float] | None
    size: float


class Row(_Frozen):
    """One recipe beside the picks: a pick without one of its parts, or a rival.

    ``epochs`` is all that it trains. A row that is not complete has a ``reason`` and no values.
    """

    name: str
    record_id: str = ""
    recipe: str = ""
    epochs: int = 0
    state: Literal["complete", "failed", "missing"] = "missing"
    reason: str = ""
    values: Values | None = None
    brought: Brought | None = None
    beaten_by: tuple[str, ...] = ()


class Picked(_Frozen):
    """A member of the front, the names that pick it, and a row for each part that was switched off."""

    record_id: str
    picks: tuple[str, ...]
    recipe: str
    epochs: int
    values: Values
    parts: tuple[Row, ...]


class Contributions(_Frozen):
    """All that ``contributions.json`` holds; ``measured`` has the records behind its rows."""

    metric: str
    baseline: Values
    picks: tuple[Picked, ...]
    rivals: tuple[Row, ...]
    measured: tuple[Record, ...]


def picked_members(result: Mapping[str, Any], names: Sequence[str] = PICKS) -> dict[str, list[str]]:
    """The ids of the members of the front that ``names`` pick, with these names, in their order."""
    members: dict[str, list[str]] = {}
    for name in names if result["front"] else ():
        members.setdefault(choose(dict(result), name)["record_id"], []).append(name)
    return members


def rivals(image_size: int) -> dict[str, Recipe]:
    """What anyone would try first, without training: a half and three quarters of the image's side, int8 alone."""
    plain = Recipe(image_size=image_size, export=Export(fast_dfl=False))
    sides = {int(image_size * part) // STRIDE * STRIDE for part in (0.75, 0.5)}
    smaller = {
        f"baseline at {side} px": plain.model_copy(update={"image_size": side})
        for side in sorted(sides, reverse=True)
        if STRIDE <= side < image_size
    }
    return {**smaller, INT8: plain.model_copy(update={"quantize": Int8Static()})}


def contributions(
    result: Mapping[str, Any],
    records: Mapping[str, Record],
    measured: Sequence[Record],
    *,
    image_size: int,
    objectives: tuple[Objective, ...],
    stock: str,
) -> Contributions:
    """The tables of the picks and rivals.

    Args:
        result: the study's, as ``search.results.summary`` gives it.
        records: the study's own.
        measured: those that were measured for these tables, or timed again.
        image_size: the study's, in pixels.
        objectives: the study's; a rival is beaten by a pick that is no worse in any and better in one.
        stock: why there is no row of a smaller stock model, for where none was measured.
    """
    complete = {name: record for name, record in records.items() if record.state == "complete"}
    anew = {record.id: record for record in measured}
    known = {**anew, **complete, **{name: record for name, record in anew.items() if record.state == "complete"}}
    picks = tuple(
        _picked(known[record_id], names, known, image_size)
        for record_id, names in picked_members(result).items()
    )  # fmt: skip
    rows = [_row(name, recipe, known.get(recipe.id)) for name, recipe in rivals(image_size).items()]
    stocks = [_row(record.id, record.recipe, record) for record in measured if record.id.startswith(STOCK)]
    rows += stocks or [Row(name="the next smaller stock model", reason=stock)]
    return Contributions(
        metric=result["metric"],
        baseline=values_of(records[BASELINE]),
        picks=picks,
        rivals=tuple(_beaten(row, picks, objectives) for row in rows),
        measured=tuple(measured),
    )


def values_of(record: Record) -> Values:
    """The measured values of a complete record."""
    measured = record.measurement
    assert measured is not None and measured.accuracy is not None
    return Values(
        accuracy=measured.accuracy.value,
        latency_ratio=measured.latency.ratio,
        latency_ratio_ci=(measured.latency.ratio_low, measured.latency.ratio_high),
        size_ratio=measured.size_ratio,
        size_bytes=measured.size_bytes,
        host=measured.host,
    )


def brought(pick: Values, without: Values) -> Brought:
    """What ``pick`` has over the same ``without`` a part."""
    same = pick.host == without.host
    (low, high), (other_low, other_high) = pick.latency_ratio_ci, without.latency_ratio_ci
    return Brought(
        accuracy=pick.accuracy - without.accuracy,
        latency=pick.latency_ratio / without.latency_ratio if same else None,
        latency_ci=(low / other_high, high / other_low) if same else None,
        size=pick.size_ratio / without.size_ratio,
    )


def _picked(record: Record, names: Sequence[str], known: Mapping[str, Record], image_size: int) -> Picked:
    values = values_of(record)
    missing = f"not trained: run `python -m search contributions DIR --pick {names[0]}`"
    rows: list[Row] = []
    for part, recipe in switched_off(record.recipe, image_size=image_size).items():
        row = _row(part, recipe, known.get(recipe.id), missing)
        own = brought(values, row.values) if row.values else None
        rows.append(row.model_copy(update={"brought": own}))
    return Picked(
        record_id=record.id,
        picks=tuple(names),
        recipe=describe(record.recipe),
        epochs=total_epochs(record.recipe),
        values=values,
        parts=tuple(rows),
    )


def _row(name: str, recipe: Recipe, record: Record | None, missing: str = "not measured yet") -> Row:
    row = Row(
        name=name, record_id=recipe.id, recipe=describe(recipe), epochs=total_epochs(recipe), reason=missing
    )  # fmt: skip
    if record is None:
        return row
    if record.state != "complete":
        return row.model_copy(update={"state": "failed", "reason": record.reason})
    found = {"state": "complete", "reason": "", "values": values_of(record), "record_id": record.id}
    return row.model_copy(update=found)


def _beaten(row: Row, picks: Sequence[Picked], objectives: tuple[Objective, ...]) -> Row:
    if row.values is None:
        return row
    rival = _losses(row.values, objectives)
    better: list[str] = []
    for pick in picks:
        pairs = list(zip(_losses(pick.values, objectives), rival, strict=True))
        if all(own <= other for own, other in pairs) and any(own < other for own, other in pairs):
            better += pick.picks
    return row.model_copy(update={"beaten_by": tuple(better)})


def _losses(values: Values, objectives: tuple[Objective, ...]) -> tuple[float, ...]:
    known = {"accuracy": values.accuracy, "latency": values.latency_ratio, "size": values.size_ratio}
    return losses(tuple(known[objective] for objective in objectives), objectives)
