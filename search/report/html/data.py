"""A study's records and results as one plain object, which the page draws. Pure: no file is read here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Any

from search.contributions import Contributions, picked_members, rivals
from search.engine.length import total_epochs
from search.record import Record
from search.report.html.importance import Dimension, Importance, dimensions, importance
from search.report.savings import savings
from search.report.tables import front_rows, header, how_sure
from search.results import feasible
from search.store import Records
from search.study import StudyConfig
from search.tasks.accuracy import value_of
from search.timeline import Moment
from spaces.describe import describe
from spaces.recipe import Recipe

AXES = 7  # parameters of the parallel coordinates: more cannot be told apart
Object = dict[str, Any]


def report_data(
    config: StudyConfig,
    records: Records,
    result: Mapping[str, Any],
    moments: Sequence[Moment],
    found: Contributions | None,
) -> Object:
    """All that is drawn, JSON-able; what is not known or not finite is None.

    Args:
        config: the study's.
        records: its records, with what was measured after the search in place.
        result: of ``search.results.summary``.
        moments: how the hypervolume grew.
        found: what the parts of the picks bring, if that was measured.
    """
    searched = records.searched
    picks = picked_members(result)
    members = {member["record_id"]: member for member in result["front"]}
    ranked = _importances(searched)
    recipes = Recipes()
    return {
        "title": config.name,
        "metric": result["metric"],
        "objectives": list(config.objectives),
        "batch": result["baseline"]["latency_batch"],
        "baseline": _baseline(result["baseline"], recipes),
        "records": _columns(config, records, recipes),
        "front": [
            {"row": row, "picks": picks.get(record.id, []), "sure": how_sure(members[record.id])}
            for row, record in enumerate(searched)
            if record.id in members
        ],
        "front_table": {"header": list(header(dict(result))), "rows": [list(row) for row in front_rows(dict(result))]},
        "tests": _tests(result),
        "rivals": _rivals(config, records, found, recipes),
        "hypervolume": {"final": result["hypervolume"], "moments": [list(astuple(moment)) for moment in moments]},
        "dimensions": [asdict(own) for own in _shown(dimensions([record.recipe for record in searched]), ranked)],
        "importance": {name: {**asdict(own), "telling": own.telling} for name, own in ranked.items() if own},
        "savings": asdict(savings(searched)),
        "contributions": [pick.model_dump(mode="json") for pick in found.picks] if found else None,
        "recipes": recipes.content(),
    }  # fmt: skip


class Recipes:
    """Recipes in little space: each distinct value of a field once, and a recipe as places among them.

    Places are counted from 0 for each field on its own.
    """

    def __init__(self) -> None:
        self._places: dict[str, dict[str, int]] = {field: {} for field in Recipe.model_fields}

    def add(self, recipe: Recipe) -> list[int]:
        """The places of the fields of ``recipe``, in the order of the fields."""
        content = recipe.model_dump(mode="json")
        places = list[int]()
        for field, known in self._places.items():
            text = json.dumps(content[field])
            places.append(known.setdefault(text, len(known)))
        return places

    def content(self) -> Object:
        """Each field's values, by its name."""
        return {field: [json.loads(text) for text in known] for field, known in self._places.items()}


def _columns(config: StudyConfig, records: Records, recipes: Recipes) -> dict[str, list[Any]]:
    """A list for each property, with an entry for each searched record, oldest first."""
    start = min((entry.at for entry in records.started if entry.at is not None), default=None)
    rows = [record_row(record, start, feasible(record, records.baseline, config)) for record in records.searched]
    for row, record in zip(rows, records.searched, strict=True):
        row["recipe"] = recipes.add(record.recipe)
    names = rows[0] if rows else ()
    return {name: [row[name] for row in rows] for name in names}


def record_row(record: Record, start: float | None, within: bool) -> Object:
    """One record; ``minutes`` since the first trial, handed out at ``start``, ``within`` the limits of the study."""
    measured = record.measurement
    accuracy = measured.accuracy if measured and record.state == "complete" else None
    return {
        "id": record.id,
        "trunk": record.recipe.trunk_id,
        "state": record.state,
        "within": within,
        "reason": record.reason,
        "text": describe(record.recipe),
        "epochs": total_epochs(record.recipe),
        "minutes": None if start is None or record.at is None else round((record.at - start) / 60, 3),
        "accuracy": _finite(accuracy.value) if accuracy else None,
        "accuracy_ci": _bounds(accuracy.low, accuracy.high) if accuracy else None,
        "latency": _finite(measured.latency.ratio) if measured else None,
        "latency_ci": _bounds(measured.latency.ratio_low, measured.latency.ratio_high) if measured else None,
        "ms": _finite(measured.latency.quiet_ms) if measured else None,
        "size": _finite(measured.size_ratio) if measured else None,
        "mb": measured.size_bytes / 1e6 if measured else None,
        "curve": [[epochs, _finite(value)] for epochs, value in record.curve],
    }


def _baseline(member: Mapping[str, Any], recipes: Recipes) -> Object:
    recipe = Recipe.model_validate(member["recipe"])
    return {
        "name": "the baseline",
        "text": describe(recipe),
        "recipe": recipes.add(recipe),
        **figures(member),
    }


def figures(member: Mapping[str, Any]) -> Object:
    """What is drawn of a member of a front, or of the baseline; sizes in MB, times in ms."""
    return {
        "accuracy": member["accuracy"],
        "accuracy_ci": member["accuracy_ci"],
        "latency": member["latency_ratio"],
        "latency_ci": member["latency_ratio_ci"],
        "ms": member["latency_ms_quiet"],
        "size": member["size_ratio"],
        "mb": member["size_bytes"] / 1e6,
    }


def _rivals(config: StudyConfig, records: Records, found: Contributions | None, recipes: Recipes) -> list[Object]:
    """The simple rivals that were measured, and why others were not."""
    if found is None:
        return []
    known = {**{record.id: record for record in found.measured}, **records.records}
    plain = rivals(config.image_size)
    rows = list[Object]()
    for row in found.rivals:
        record = known.get(row.record_id)
        recipe = plain.get(row.name) or (record.recipe if record else None)
        own: Object = {"name": row.name, "text": row.recipe, "reason": row.reason, "beaten_by": list(row.beaten_by)}
        own["recipe"] = recipes.add(recipe) if recipe else None
        if row.values is not None:
            measured = record.measurement if record else None
            own |= {
                "accuracy": row.values.accuracy,
                "accuracy_ci": None,
                "latency": row.values.latency_ratio,
                "latency_ci": list(row.values.latency_ratio_ci),
                "ms": measured.latency.quiet_ms if measured else None,
                "size": row.values.size_ratio,
                "mb": row.values.size_bytes / 1e6,
                "doubts": list(row.values.doubts),
            }
        rows.append(own)
    return rows


def _tests(result: Mapping[str, Any]) -> list[Object]:
    """The accuracies on the test split beside those on the validation split."""
    return [
        {
            "id": member["record_id"],
            "val": member["accuracy"],
            "test": value_of(member["test"]),
            "test_ci": _bounds(member["test"].get("low"), member["test"].get("high")),
        }
        for member in [*result["front"], result["baseline"]]
        if member["test"]
    ]


def _importances(searched: Sequence[Record]) -> dict[str, Importance | None]:
    """By result: of accuracy over finished records, of latency and size over all that were measured."""
    targets: dict[str, list[tuple[Recipe, float]]] = {"accuracy": [], "latency": [], "size": []}
    for record in searched:
        measured = record.measurement
        if record.values(("accuracy",)) and measured and measured.accuracy:
            targets["accuracy"].append((record.recipe, measured.accuracy.value))
        if measured and math.isfinite(measured.latency.ratio):
            targets["latency"].append((record.recipe, measured.latency.ratio))
            targets["size"].append((record.recipe, measured.size_ratio))
    return {name: importance([r for r, _ in rows], [v for _, v in rows]) for name, rows in targets.items()}


def _shown(varied: Sequence[Dimension], ranked: Mapping[str, Importance | None]) -> list[Dimension]:
    """The dimensions that tell most about any result, in the order of the recipe; the first ones if none is known."""
    telling = [found.falls for found in ranked.values() if found and found.telling]
    most = {own.name: max((falls.get(own.name, 0.0) for falls in telling), default=0.0) for own in varied}
    chosen = sorted(most, key=lambda name: -most[name])[:AXES]
    return [own for own in varied if own.name in chosen]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bounds(low: float | None, high: float | None) -> list[float] | None:
    return None if low is None or high is None or not math.isfinite(low + high) else [low, high]
