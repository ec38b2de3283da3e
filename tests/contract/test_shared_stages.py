"""Results of stages that go from machine to machine through a URL, also of a training that was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search import cache as caches
from search.cache import StageCache
from search.pipeline import Inputs, shape, train
from search.storage.shared import SharedResults
from spaces.recipe import Finetune, Recipe
from tests.tiny import SIZE, weights

RECIPE = Recipe(image_size=SIZE, finetune=Finetune(epochs=4, batch=6))


class NodeLostError(Exception):
    """The end of a worker in the middle of a training."""


def node(number: int, place: Path, baseline: Path, data: Path) -> Inputs:
    """A machine with a folder of its own; all have the URL."""
    cache = StageCache(place / f"node-{number}", url=f"file://{place}/there")
    return Inputs(baseline=baseline, data=data, cache=cache, data_digest="digest")


def run(inputs: Inputs, epochs: list[int], lose_after: int = 0) -> Any:
    def heard(done: int, total: int, snapshot: Any) -> None:
        epochs.append(done)
        if done == lose_after:
            raise NodeLostError

    return train(shape(RECIPE, inputs), RECIPE, inputs, heard)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_training_that_lost_its_node_goes_on_from_its_last_epoch_on_another(
    baseline: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(caches, "STATE_SHARE", 1e9)
    whole = run(Inputs(baseline=baseline, data=data), [])
    first, second, third = [], [], []
    with pytest.raises(NodeLostError):
        run(node(1, tmp_path, baseline, data), first, lose_after=3)
    assert [name.endswith(".state") for name in files(tmp_path / "there")] == [True]
    gone_on = run(node(2, tmp_path, baseline, data), second)
    assert first == [1, 2, 3] and second[0] in (3, 4) and second[-1] == 4  # what was sent last
    assert weights(gone_on) == weights(whole)
    assert [name.endswith(".state") for name in files(tmp_path / "there")] == [False]
    found = run(node(3, tmp_path, baseline, data), third)
    assert third == [] and weights(found) == weights(whole)


def test_states_are_sent_once_in_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sent = [0.0], []
    monkeypatch.setattr(caches.time, "monotonic", lambda: clock[0])

    def send(self: SharedResults, path: Path, name: str) -> None:
        sent.append(clock[0])
        clock[0] += 10.0  # it takes so long

    monkeypatch.setattr(SharedResults, "send", send)
    cache = StageCache(tmp_path, url=f"file://{tmp_path}/there")
    cache.share_state("x")
    assert sent == []  # there is none
    (tmp_path / "x").write_text("state")
    for second in range(1000):
        clock[0] = max(clock[0], float(second))
        cache.share_state("x")
    assert sent == [0.0, 210.0, 420.0, 630.0, 840.0]  # 10 seconds of each 200


def test_a_place_that_is_away_costs_nothing_but_what_it_would_have_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = StageCache(tmp_path / "here", url=f"file://{tmp_path}/file/there")
    made: list[int] = []
    for _ in range(2):
        found = cache.get("a", lambda: str(made.append(1)), load=Path.read_text, save=save)
        assert found == "None" and made == [1]
    assert "b" not in cache and cache.find("b", Path.read_text) is None
    cache.drop("a")
    assert caplog.text.count("the stage cache is not used for a while") == 1


def save(text: str, path: Path) -> None:
    path.write_text(text)
