"""What is predicted against functions that are known, and errors that are what they say."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import numpy as np
import pytest

from search.engine.draw import draw, neighbour, uniform
from search.engine.features import ABSENT, Encoder
from search.engine.predict import Forest, Predictor, shape_key
from search.engine.propose import Proposer
from spaces.domain import Choice, Range
from spaces.parse import parse_space
from spaces.recipe import ChannelPrune, Finetune, Int8Static, Recipe
from spaces.space import Space

SPACE: dict[str, Any] = {
    "image_size": [32, 64],
    "activation": ["silu", "relu"],
    "prune": [{"kind": "none"}, {"kind": "channels", "ratio": {"low": 0.1, "high": 0.7, "step": 0.1}}],
    "finetune": {"kind": "train", "epochs": [10, 20], "lr": {"low": 0.001, "high": 0.1, "log": True}},
    "quantize": [{"kind": "fp32"}, {"kind": "int8"}],
}


@pytest.fixture
def space() -> Space:
    return parse_space(SPACE, name="test", image_size=64)


def latency_of(recipe: Recipe) -> float:
    ratio = recipe.prune.ratio if isinstance(recipe.prune, ChannelPrune) else 0.0
    return (1 - ratio) * (recipe.image_size / 64) * (0.5 if recipe.quantize.kind == "int8" else 1.0)


def test_a_row_names_what_was_chosen(space: Space) -> None:
    plain = Recipe(image_size=32, finetune=Finetune(epochs=20, lr=0.01))
    pruned = plain.model_copy(update={"prune": ChannelPrune(ratio=0.4), "quantize": Int8Static()})
    # image size, silu, relu, none, channels, ratio, epochs, lr on its log scale, fp32, int8
    assert Encoder(space).row(plain) == pytest.approx([0, 1, 0, 1, 0, ABSENT, 1, 0.5, 1, 0])
    assert Encoder(space).row(pruned) == pytest.approx([0, 1, 0, 0, 1, 0.5, 1, 0.5, 0, 1])


def test_latency_is_learned_and_its_error_is_that_of_unseen_trunks(space: Space) -> None:
    encoder, random = Encoder(space), Random(0)
    predictor = Predictor(encoder, seed=0)
    assert predictor.errors().latency is None
    for _ in range(80):
        recipe = draw(space, random)
        predictor.learn_costs(recipe, latency=latency_of(recipe), size=latency_of(recipe) ** 2)
    unseen = [draw(space, random) for _ in range(60)]
    values, _ = predictor.costs(np.array([encoder.row(recipe) for recipe in unseen]))
    truth = np.array([latency_of(recipe) for recipe in unseen])
    missed = np.sqrt(np.mean(np.log(values[:, 0] / truth) ** 2))
    stated = predictor.errors().latency
    assert stated is not None
    assert missed < 0.15
    assert 0.3 < stated / missed < 5  # the last estimate was made with fewer rows
    assert np.log(values[:, 1]) == pytest.approx(2 * np.log(values[:, 0]), abs=0.3)


def test_what_was_measured_is_not_predicted(space: Space) -> None:
    encoder = Encoder(space)
    predictor = Predictor(encoder, seed=0)
    recipe = Recipe(image_size=32, finetune=Finetune(epochs=10))
    trained_longer = recipe.model_copy(update={"finetune": Finetune(epochs=20, lr=0.1)})
    predictor.learn_costs(recipe, latency=0.123, size=0.456)
    predictor.learn_costs(Recipe(image_size=64), latency=0.9, size=0.9)
    predictor.learn_accuracy(recipe, 0.5)
    (found,) = Proposer(space, encoder, predictor, ("accuracy", "latency"), leaves=False).expect([trained_longer])
    assert found.costs.tolist() == [[0.123, 0.456]]
    assert found.doubt.tolist() == [[0.0, 0.0]]
    assert predictor.measured(shape_key(trained_longer)) == (0.123, 0.456)


def test_the_spread_holds_what_the_trees_cannot_explain() -> None:
    """A target of pure noise: the prediction's spread is about its standard deviation, not the trees' alone."""
    random = np.random.default_rng(0)
    forest = Forest(1, seed=0)
    for index in range(128):
        forest.add(random.normal(size=2), [random.normal()], str(index))
    mean, spread = forest.predict(random.normal(size=(50, 2)))
    assert forest.errors is not None
    assert 0.9 < forest.errors[0] < 1.5
    assert 0.8 < spread.mean() < 1.6
    assert np.abs(mean).mean() < 1.0


def test_accuracies_are_likely_outcomes_below_a_ceiling(space: Space) -> None:
    """Four fifths of what is taught lies within the middle four fifths of what is predicted of unseen recipes."""
    encoder, random = Encoder(space), Random(0)
    predictor, noise = Predictor(encoder, seed=0), np.random.default_rng(0)
    truth = lambda recipe: 0.6 - 0.05 * math.exp(noise.normal(0, 0.5)) - 0.1 * (recipe.image_size == 32)  # noqa: E731
    for _ in range(80):
        recipe = draw(space, random)
        predictor.learn_accuracy(recipe, truth(recipe))
    unseen = [draw(space, random) for _ in range(200)]
    outcomes = predictor.accuracy(np.array([encoder.row(recipe) for recipe in unseen]))
    assert (np.diff(outcomes, axis=1) > 0).all()
    assert outcomes.max() < 0.6 * 1.03
    count = outcomes.shape[1]
    values = np.array([truth(recipe) for recipe in unseen])
    low, high = outcomes[:, count // 10], outcomes[:, -1 - count // 10]
    assert 0.7 < np.mean((low <= values) & (values <= high)) < 0.92


@pytest.mark.parametrize("headroom", [None, 0.03])
@pytest.mark.parametrize("rows", [64, 65, 67, 128])  # judged at 64 and 128, fitted at 63 and 66, at 126 and 132
def test_a_forest_does_not_care_when_it_was_asked(rows: int, headroom: float | None) -> None:
    """One is asked after every row, as in a running study, one only at the end, as in a resumed one."""
    random, probe = np.random.default_rng(0), np.random.default_rng(1).random((5, 4))
    often, once = Forest(2, seed=0, headroom=headroom), Forest(2, seed=0, headroom=headroom)
    for number in range(rows):
        row, target, group = random.random(4), [number + random.random(), random.random()], str(number // 2)
        often.add(row, target, group)
        once.add(row, target, group)
        often.predict(probe)
    for ours, theirs in zip(often.predict(probe), once.predict(probe), strict=True):
        assert ours.tolist() == theirs.tolist()
    assert often.errors == once.errors
    assert often.ceiling == once.ceiling


def test_the_same_rows_and_seed_give_the_same_predictions() -> None:
    def predicted() -> Any:
        random = np.random.default_rng(1)
        forest = Forest(2, seed=3)
        for index in range(20):
            forest.add(random.normal(size=3), random.normal(size=2).tolist(), str(index // 2))
        return [values.tolist() for values in forest.predict(random.normal(size=(4, 3)))]

    assert predicted() == predicted()


def test_a_neighbour_changes_little_and_stays_in_the_space(space: Space) -> None:
    random = Random(0)
    parent = Recipe(image_size=64, prune=ChannelPrune(ratio=0.4), finetune=Finetune(epochs=20, lr=0.01))
    same = neighbour(space, parent, random, changes=0.0)
    assert same.trunk_id == parent.trunk_id
    near = [neighbour(space, parent, random) for _ in range(50)]
    assert all(space.params(recipe) is not None for recipe in near)
    assert len({recipe.trunk_id for recipe in near}) >= 15
    assert sum(recipe.image_size == 64 for recipe in near) > 30  # kept more often than not


@pytest.mark.parametrize(
    "domain",
    [
        Choice(values=(1, 2, 5)),
        Range(low=0.1, high=0.3, step=0.1),
        Range(low=1, high=3),
        Range(low=1e-3, high=1.0, log=True),
    ],
)
def test_uniform_draws_are_in_their_domain_and_even(domain: Any) -> None:
    random = Random(0)
    values = [uniform(domain, random) for _ in range(3000)]
    assert all(domain.contains(value) for value in values)
    if isinstance(domain, Range) and domain.log:
        assert np.mean(np.log10(values)) == pytest.approx(-1.5, abs=0.05)
    else:
        counts = [values.count(value) for value in set(values)]
        assert len(counts) == 3
        assert min(counts) > 900
