"""Trainings that were done are found again, by every recipe that begins with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from search.cache import StageCache
from search.pipeline import Inputs, shape, train
from spaces.recipe import Finetune, Int8Qat, Recipe, SlimmingPrune, WeightQat
from tests.tiny import SIZE, weights


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of every training that is really done."""
    import search.training

    done: list[int] = []
    stock = search.training.finetune

    def count(model: Any, part: Finetune, *args: Any, **kwargs: Any) -> Any:
        done.append(part.epochs)
        return stock(model, part, *args, **kwargs)

    monkeypatch.setattr(search.training, "finetune", count)
    return done


@pytest.fixture
def inputs(baseline: Path, data: Path, tmp_path: Path) -> Inputs:
    return Inputs(baseline=baseline, data=data, cache=StageCache(tmp_path / "stages"))


def trained(inputs: Inputs, **fields: Any) -> Any:
    recipe = Recipe(image_size=SIZE, **fields)
    return train(shape(recipe, inputs), recipe, inputs)


TUNE = Finetune(epochs=1, batch=6)


def test_the_same_recipe_is_trained_once(inputs: Inputs, trainings: list[int]) -> None:
    first, second = (trained(inputs, finetune=TUNE) for _ in range(2))
    assert trainings == [1]
    assert weights(first) == weights(second)


def test_recipes_that_begin_alike_share_what_they_begin_with(inputs: Inputs, trainings: list[int]) -> None:
    prune = SlimmingPrune(ratio=0.3, sparsity_epochs=1, round_to=4)
    trained(inputs, prune=prune, finetune=TUNE)
    assert trainings == [1, 1]
    trained(inputs, prune=prune, finetune=TUNE, qat=WeightQat(epochs=2))
    assert trainings == [1, 1, 2]
    one, two = (trained(inputs, prune=prune, finetune=TUNE, qat=Int8Qat(epochs=3)) for _ in range(2))
    assert trainings == [1, 1, 2, 3]
    assert weights(one) == weights(two)


@pytest.mark.parametrize(
    "change",
    [
        {"finetune": TUNE.model_copy(update={"lr": 1e-3})},
        {"activation": "relu"},
        {"distill": {"kind": "logit"}},
        {"sparsify": {"kind": "n_m"}},
    ],
)
def test_any_other_recipe_is_trained_for_itself(inputs: Inputs, trainings: list[int], change: dict[str, Any]) -> None:
    plain = trained(inputs, finetune=TUNE)
    other = trained(inputs, **{"finetune": TUNE, **change})
    assert trainings == [1, 1]
    assert weights(plain) != weights(other)


def test_changed_data_are_trained_on_anew(
    inputs: Inputs, data: Path, trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.training import _tree_stamp

    trained(inputs, finetune=TUNE)
    label = next(data.parent.glob("labels/train/*.txt")).resolve()
    stat = label.stat()
    os.utime(label, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    _tree_stamp.cache_clear()
    try:
        trained(inputs, finetune=TUNE)
        assert trainings == [1, 1]
    finally:
        os.utime(label, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        _tree_stamp.cache_clear()


def test_nothing_but_the_result_is_left(inputs: Inputs, trainings: list[int]) -> None:
    trained(inputs, finetune=Finetune(epochs=3, batch=6))
    assert inputs.cache is not None
    [left] = inputs.cache.folder.iterdir()
    assert left.name.startswith("train-") and left.suffix == ""


def test_what_listens_to_the_epochs_changes_nothing(baseline: Path, data: Path) -> None:
    """A listener may draw random numbers, and ask for the model as it is."""
    import random

    import numpy as np
    import torch

    inputs = Inputs(baseline=baseline, data=data)
    seen: list[Any] = []
    drawn: list[float] = []

    def listen(done: int, total: int, snapshot: Any) -> None:
        drawn.extend((random.random(), float(np.random.random()), float(torch.rand(()))))
        seen.append(snapshot())

    recipe = Recipe(image_size=SIZE, finetune=Finetune(epochs=2, batch=6), qat=WeightQat(epochs=1))
    loud = train(shape(recipe, inputs), recipe, inputs, listen)
    assert weights(loud) == weights(train(shape(recipe, inputs), recipe, inputs))
    assert weights(seen[-1]) == weights(loud)
    assert [type(module) for module in seen[-1].modules()] == [type(module) for module in loud.modules()]
