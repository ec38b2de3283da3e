"""What recorded studies say, as plain rows: costs, final accuracies, leaves' differences, curves and seconds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from search.engine.length import total_epochs
from search.errors import UserError
from search.record import Record
from search.results import open_study
from search.study import StudyConfig
from spaces.recipe import Recipe

CURVES = "curves.jsonl"


class Curve(BaseModel):
    """One line of a ``curves.jsonl``: a training that was watched, without the files of a study.

    ``curve`` is pairs of epochs done and mAP50-95 of the float model; its last epoch is the training's last.
    ``epoch_seconds`` is CPU time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    seed: int
    curve: tuple[tuple[int, float], ...]
    epoch_seconds: float


@dataclass(frozen=True, kw_only=True)
class Final:
    """A trunk that was trained to its end. ``accuracy`` is the mean of its leaves, ``differences`` are theirs to it."""

    recipe: Recipe
    accuracy: float
    differences: dict[str, float]


@dataclass(kw_only=True)
class Recorded:
    """Everything read. ``config`` is the first study's, and ``baseline`` its baseline's record."""

    config: StudyConfig
    baseline: Record
    costs: list[tuple[Recipe, float, float]] = field(default_factory=list)  # recipe, latency ratio, size ratio
    finals: list[Final] = field(default_factory=list)
    curves: list[tuple[Recipe, tuple[tuple[int, float], ...]]] = field(default_factory=list)
    epoch_seconds: list[tuple[Recipe, float]] = field(default_factory=list)
    screen_seconds: float = 0.0  # median of a trial
    measure_seconds: float = 0.0
    repeats: list[float] = field(default_factory=list)  # differences of final accuracy between seeds


def read(folders: Sequence[Path]) -> Recorded:
    """Reads study folders, and folders that hold only a ``curves.jsonl``.

    Raises:
        UserError: none of them is a study with a baseline.
    """
    studies = [folder for folder in folders if (folder / "study.yaml").is_file()]
    if not studies:
        raise UserError("--records: none of the folders is a study folder; name one with study.yaml and records.jsonl")
    config, store = open_study(studies[0])
    if store.baseline is None:
        raise UserError(f"--records: {studies[0]} has no baseline")
    found = Recorded(config=config, baseline=store.baseline)
    seconds: list[dict[str, float]] = []
    for folder in studies:
        records = open_study(folder)[1].searched
        for _, leaves in itertools.groupby(records, key=lambda record: record.recipe.trunk_id):
            _add_trunk(found, list(leaves), seconds)
    for folder in folders:
        if (folder / CURVES).is_file():
            _add_curves(found, folder / CURVES)
    found.screen_seconds = float(np.median([s.get("shape", 0) + s.get("screen", 0) for s in seconds if "screen" in s]))
    found.measure_seconds = float(np.median([s["measure"] for s in seconds if "measure" in s] or [0.0]))
    return found


def leaf_name(recipe: Recipe) -> str:
    """Names the leaf of a recipe, the same for every trunk."""
    return json.dumps([recipe.quantize.model_dump(), recipe.export.model_dump()], sort_keys=True)


def _add_trunk(found: Recorded, leaves: list[Record], seconds: list[dict[str, float]]) -> None:
    found.costs += [
        (r.recipe, r.measurement.latency.ratio, r.measurement.size_ratio) for r in leaves if r.measurement is not None
    ]
    recipe = leaves[0].recipe
    accuracies = {
        leaf_name(r.recipe): r.measurement.accuracy.value
        for r in leaves
        if r.state == "complete" and r.measurement and r.measurement.accuracy
    }
    epochs = total_epochs(recipe)
    seconds.append(leaves[0].seconds)
    if not accuracies:
        return
    mean = float(np.mean(list(accuracies.values())))
    differences = {name: accuracy - mean for name, accuracy in accuracies.items()}
    found.finals.append(Final(recipe=recipe, accuracy=mean, differences=differences))
    if epochs and "train" in leaves[0].seconds:
        found.epoch_seconds.append((recipe, leaves[0].seconds["train"] / epochs))
    # A training that collapsed ends at 0, and says nothing about how accuracy rises.
    if leaves[0].curve and leaves[0].curve[-1][0] == epochs and leaves[0].curve[-1][1] > 0:
        found.curves.append((recipe, leaves[0].curve))


def _add_curves(found: Recorded, path: Path) -> None:
    lines = [Curve.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    ends: dict[str, list[float]] = {}
    for line in lines:
        found.curves.append((line.recipe, line.curve))
        ends.setdefault(line.recipe.trunk_id, []).append(line.curve[-1][1])
    found.repeats += [own[0] - other for own in ends.values() for other in own[1:]]
