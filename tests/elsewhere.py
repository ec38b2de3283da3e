"""A small study of three targets, whose fronts differ, for tests of what is said about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from search.record import Elsewhere, Record
from search.store import Store, write_atomically
from search.study import StudyConfig
from spaces.recipe import ChannelPrune, Recipe
from tests.fakes import make_baseline, make_record

MAIN, PHONE, BOARD = "onnxruntime-cpu", "phone", "board"
RATIOS = {"large": 0.3, "middle": 0.5, "small": 0.7}  # of the channels that are pruned
ACCURACY = {"large": 0.59, "middle": 0.58, "small": 0.50}
LATENCY = {
    MAIN: {"large": 0.6, "middle": 0.4, "small": 0.2},
    PHONE: {"large": 0.3, "middle": 0.5, "small": 0.25},  # the middle one is behind the large one here
}
IDS = {name: Recipe(image_size=64, prune=ChannelPrune(ratio=ratio)).id for name, ratio in RATIOS.items()}


def three_targets(folder: Path) -> tuple[StudyConfig, Store]:
    """The study's records in ``folder``; the phone runs two pictures at once, the board has only the baseline."""
    config = StudyConfig.model_validate(
        {
            "name": "everywhere",
            "model": "a.pt",
            "data": "data.yaml",
            "image_size": 64,
            "other_targets": [{"name": name, "runtime": "onnxruntime"} for name in (PHONE, BOARD)],
        }
    )
    write_atomically(folder / "study.yaml", config.to_yaml())
    store = Store(folder)
    baseline = make_baseline()
    alone = baseline.measurement
    assert alone is not None
    two = alone.model_copy(update={"latency": replace(alone.latency, batch=2)})
    there = {
        PHONE: Elsewhere(artifact=baseline.artifact, measurement=two),
        BOARD: Elsewhere(artifact=baseline.artifact, measurement=alone),
    }
    store.append([baseline.model_copy(update={"elsewhere": there}), *map(_record, RATIOS)])
    return config, store


def _record(name: str) -> Record:
    recipe = Recipe(image_size=64, prune=ChannelPrune(ratio=RATIOS[name]))
    here, phone = (
        make_record(recipe, accuracy=ACCURACY[name], latency=LATENCY[where][name], size=1 - RATIOS[name])
        for where in (MAIN, PHONE)
    )
    there = {PHONE: Elsewhere(artifact=phone.artifact, measurement=phone.measurement)}
    return here.model_copy(update={"elsewhere": there})
