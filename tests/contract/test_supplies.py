"""What is sent to a machine that does not see the study: whole, once, and as good as what it was made of."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.cache import StageCache
from search.data import calibration_images
from search.errors import FaultError
from search.pipeline import Inputs, shape, train
from search.settle import KEPT, settle, sources_of
from search.supplies import pack_supplies
from search.target import Target
from search.workplace import Workplace
from spaces.recipe import Finetune, Recipe
from tests.tiny import SIZE, files_below, weights


@pytest.fixture
def place(baseline: Path, data: Path, plain: Path, tmp_path: Path) -> Workplace:
    folder = tmp_path / "study"
    folder.mkdir()
    return Workplace(
        folder=folder,
        inputs=Inputs(baseline=baseline, data=data, cache=StageCache(folder / "cache" / "stages")),
        target=Target(),
        baselines={"onnx": plain},
        baseline_recipe=Recipe(image_size=SIZE),
        token="abc",
    )


def test_a_settled_place_gives_the_same_results(place: Workplace, tmp_path: Path) -> None:
    supplies = pack_supplies(sources_of(place))
    there = settle(place, supplies.digest, lambda: supplies, tmp_path / "node")
    files = [there.inputs.baseline, there.inputs.data, there.inputs.cache.folder, *there.baselines.values()]
    assert all(file.is_relative_to(there.folder) and not file.is_symlink() for file in files)
    assert there.visible and not place.visible
    images = [calibration_images(own.inputs.data, image_size=SIZE, count=3, seed=1) for own in (place, there)]
    assert all((one == two).all() for one, two in zip(*images, strict=True))

    recipe = Recipe(image_size=SIZE, finetune=Finetune(epochs=1, batch=6))
    here, away = (train(shape(recipe, own.inputs), recipe, own.inputs) for own in (place, there))
    assert weights(here) == weights(away)
    names = [sorted(file.name for file in own.inputs.cache.folder.iterdir()) for own in (place, there)]
    assert names[0] == names[1]  # so that a cache which all share serves all


def test_a_cache_that_is_seen_from_everywhere_is_kept(place: Workplace, tmp_path: Path) -> None:
    supplies, shared = pack_supplies(sources_of(place)), tmp_path / "shared"
    inputs = Inputs(baseline=place.inputs.baseline, data=place.inputs.data, cache=StageCache(shared))
    elsewhere = Workplace(**{**vars(place), "inputs": inputs})
    for index, expected in enumerate((tmp_path / "node0" / supplies.digest / "cache" / "stages", shared)):
        there = settle(elsewhere, supplies.digest, lambda: supplies, tmp_path / f"node{index}")
        assert there.inputs.cache.folder == expected
        shared.mkdir(exist_ok=True)


def test_what_is_behind_a_url_is_there_for_every_node(place: Workplace, tmp_path: Path) -> None:
    supplies = pack_supplies(sources_of(place))
    cache = StageCache(place.folder / "cache" / "stages", url=(tmp_path / "bucket").as_uri())
    elsewhere = Workplace(**{**vars(place), "inputs": replace(place.inputs, cache=cache)})
    cache.put("a-training", lambda path: path.write_bytes(b"weights"))
    there = settle(elsewhere, supplies.digest, lambda: supplies, tmp_path / "node").inputs.cache
    assert there.folder != cache.folder
    assert there.find("a-training", Path.read_bytes) == b"weights"


def test_trials_of_one_machine_fetch_once(place: Workplace, tmp_path: Path) -> None:
    supplies, root = pack_supplies(sources_of(place)), tmp_path / "node"
    fetched = tmp_path / "fetched"

    def fetch() -> Any:
        with fetched.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(1)
        return supplies

    fork = multiprocessing.get_context("fork")
    trials = [fork.Process(target=settle, args=(place, supplies.digest, fetch, root)) for _ in range(3)]
    for trial in trials:
        trial.start()
    for trial in trials:
        trial.join(60)
    assert [trial.exitcode for trial in trials] == [0, 0, 0]
    assert len(fetched.read_text().split()) == 1


def test_a_fetch_that_is_cut_off_leaves_nothing(place: Workplace, tmp_path: Path) -> None:
    supplies, root = pack_supplies(sources_of(place)), tmp_path / "node"

    def broken() -> Any:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        settle(place, supplies.digest, broken, root)
    assert not (root / supplies.digest).exists()
    folder = settle(place, supplies.digest, lambda: supplies, root).folder
    content = files_below(folder)
    assert settle(place, supplies.digest, broken, root).folder == folder  # it is here
    assert files_below(folder) == content


def test_what_nobody_used_for_long_goes_when_something_comes(place: Workplace, tmp_path: Path) -> None:
    supplies, root = pack_supplies(sources_of(place)), tmp_path / "node"
    old, new = root / "old", root / "new"
    for folder, age in ((old, KEPT + 60), (new, KEPT - 60)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age, time.time() - age))
    settle(place, supplies.digest, lambda: supplies, root)
    assert new.is_dir() and not old.exists()


def test_other_content_has_another_digest(place: Workplace, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(place.inputs.data.parent, copy)  # without the links
    sources = {**sources_of(place), "data": copy}
    first = pack_supplies(sources).digest
    assert pack_supplies(sources).digest == first
    label = next((copy / "labels" / "train").glob("*.txt"))
    label.write_text(label.read_text() + "1 0.5 0.5 0.25 0.25\n")
    assert pack_supplies(sources).digest != first


def test_what_is_too_large_is_refused_before_it_is_read(place: Workplace) -> None:
    with pytest.raises(FaultError, match=r"are 0\.0 GB, and machines .* at most 1e-05 GB; put the study"):
        pack_supplies(sources_of(place), limit=10_000)
