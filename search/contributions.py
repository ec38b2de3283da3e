"""What each part of a picked recipe brings: rows and differences, made from records that were measured.

Pure: nothing is measured here (search/ablation.py does). A record stands for its recipe, so rows follow the picks:
when a pick changes, its rows are those of the new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from search.engine.length import total_epochs
from search.final import pooled
from search.front import PICKS
from search.measure.latency import Latency
from search.noise import differences
from search.record import BASELINE, Objective, Record
from search.results import choose
from spaces.ablation import switched_off
from spaces.describe import describe
from spaces.recipe import STRIDE, Export, Int8Static, Recipe

STOCK = "stock-"  # begins the record ids of stock models, whose recipe is the plain one
INT8 = "int8 alone"  # a rival's name


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Timing(_Frozen):
    """A row's file and the file of its pick, timed one right after the other, each beside the study's baseline.

    A rival has no pick; a pick has no latency where its file is gone.
    """

    row: str
    latency: Latency
    pick: str = ""
    pick_latency: Latency | None = None

    @property
    def factor(self) -> Latency | None:
        """The pick's ratio over the row's, with what both intervals allow; None without both on one host."""
        pick, row = self.pick_latency, self.latency
        if pick is None or pick.host != row.host:
            return None
        return replace(
            pick,
            ratio=pick.ratio / row.ratio,
            ratio_low=pick.ratio_low / row.ratio_high,
            ratio_high=pick.ratio_high / row.ratio_low,
            doubts=tuple(dict.fromkeys((*pick.doubts, *row.doubts))),
            disturbed=pick.disturbed or row.disturbed,
        )

    @property
    def calm(self) -> bool:
        """Whether all of it was timed, while nobody else used the machine's memory."""
        told = self.factor if self.pick else self.latency
        return told is not None and not told.disturbed


class Values(_Frozen):
    """What was measured: accuracy on the validation split, ratios to the study's FP32 baseline file, bytes.

    ``doubts`` are sentences on why the latency should be taken again.
    """

    accuracy: float
    latency_ratio: float
    latency_ratio_ci: tuple[float, float]
    size_ratio: float
    size_bytes: int
    host: str
    doubts: tuple[str, ...] = ()


class Brought(_Frozen):
    """The pick set against the same recipe without a part: the difference in accuracy, and factors.

    ``latency`` 0.5 says that the part halves the latency. It is of timings of one file right after the other, and None
    where there are none. ``doubts`` are sentences on why it should be taken again.
    """

    accuracy: float
    latency: float | None
    latency_ci: tuple[float, float] | None
    size: float
    doubts: tuple[str, ...] = ()


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
    """All that ``contributions.json`` holds; ``measured`` and ``timings`` are what its rows are made of."""

    metric: str
    baseline: Values
    picks: tuple[Picked, ...]
    rivals: tuple[Row, ...]
    measured: tuple[Record, ...]
    timings: tuple[Timing, ...] = ()


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
    timings: Sequence[Timing] = (),
    *,
    image_size: int,
    objectives: tuple[Objective, ...],
    stock: str,
) -> Contributions:
    """The tables of the picks and rivals.

    Args:
        result: the study's, as ``search.results.summary`` gives it.
        records: the study's own.
        measured: those that were measured for these tables.
        timings: of all of them; a record that has some is known by them alone.
        image_size: the study's, in pixels.
        objectives: the study's; a rival is beaten by a pick that surely dominates it.
        stock: why there is no row of a smaller stock model, for where none was measured.
    """
    complete = {name: record for name, record in records.items() if record.state == "complete"}
    own = {**{record.id: record for record in measured}, **complete}
    known = {name: timed(record, timings) for name, record in own.items()}
    members = picked_members(result)
    rows = [_row(name, recipe, known.get(recipe.id)) for name, recipe in rivals(image_size).items()]
    stocks = [_row(name, record.recipe, record) for name, record in known.items() if name.startswith(STOCK)]
    rows += stocks or [Row(name="the next smaller stock model", reason=stock)]
    return Contributions(
        metric=result["metric"],
        baseline=values_of(records[BASELINE]),
        picks=tuple(
            _picked(known[record_id], names, known, timings, image_size) for record_id, names in members.items()
        ),
        rivals=tuple(_beaten(row, members, known, objectives) for row in rows),
        measured=tuple(measured),
        timings=tuple(timings),
    )


def timed(record: Record, timings: Sequence[Timing]) -> Record:
    """The record with the latency that its timings give together, of all on the last one's host; as it is without."""
    measured = record.measurement
    both = [pair for t in timings for pair in ((t.row, t.latency), (t.pick, t.pick_latency))]
    own = [latency for name, latency in both if name == record.id and latency is not None]
    if measured is None or not own:
        return record
    latency = pooled([latency for latency in own if latency.host == own[-1].host])
    update = {"latency": latency, "host": latency.host}
    return record.model_copy(update={"measurement": measured.model_copy(update=update)})


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
        doubts=measured.latency.doubts,
    )


def brought(pick: Values, without: Values, timings: Sequence[Timing]) -> Brought:
    """What ``pick`` has over the same ``without`` a part; ``timings`` are those of these two."""
    factors = [factor for timing in timings if (factor := timing.factor) is not None]
    latency = pooled([factor for factor in factors if factor.host == factors[-1].host]) if factors else None
    return Brought(
        accuracy=pick.accuracy - without.accuracy,
        latency=latency.ratio if latency else None,
        latency_ci=(latency.ratio_low, latency.ratio_high) if latency else None,
        size=pick.size_ratio / without.size_ratio,
        doubts=latency.doubts if latency else (),
    )


def _picked(
    record: Record, names: Sequence[str], known: Mapping[str, Record], timings: Sequence[Timing], image_size: int
) -> Picked:
    values = values_of(record)
    missing = f"not trained: run `python -m search contributions DIR --pick {names[0]}`"
    rows: list[Row] = []
    for part, recipe in switched_off(record.recipe, image_size=image_size).items():
        row = _row(part, recipe, known.get(recipe.id), missing)
        both = [timing for timing in timings if (timing.pick, timing.row) == (record.id, recipe.id)]
        own = brought(values, row.values, both) if row.values else None
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


def _beaten(
    row: Row, members: Mapping[str, list[str]], known: Mapping[str, Record], objectives: tuple[Objective, ...]
) -> Row:
    """The row with the picks that surely dominate it; on another host a latency says nothing."""
    if row.values is None:
        return row
    better: list[str] = []
    for record_id, names in members.items():
        comparable = "latency" not in objectives or values_of(known[record_id]).host == row.values.host
        if comparable and differences([known[row.record_id]], [known[record_id]], objectives).surely_dominated.all():
            better += names
    return row.model_copy(update={"beaten_by": tuple(better)})
