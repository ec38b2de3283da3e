"""The suggester as a whole: proposals, budgets, and that a new one from the same records knows the same."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from search.driver import in_flight
from search.engine.budget import stalled, used_up
from search.engine.length import total_epochs
from search.engine.suggester import FIRST, TRUNKS, Suggester
from search.record import Record
from search.store import Records
from search.study import Budget, SamplerName, Stall, StudyConfig
from search.trial import Task
from spaces.parse import parse_space
from spaces.recipe import ChannelPrune, Recipe
from spaces.space import Space
from spaces.starts import starting_recipes
from tests.fakes import make_baseline, make_record

SPACE: dict[str, Any] = {
    "image_size": [32, 64],
    "activation": ["silu", "relu"],
    "prune": {"kind": "channels", "ratio": {"low": 0.1, "high": 0.8, "step": 0.1}},
    "finetune": {"kind": "train", "epochs": [5, 10], "lr": {"low": 0.0001, "high": 0.1, "log": True}},
    "quantize": [{"kind": "fp32"}, {"kind": "int8"}],
}


@pytest.fixture
def space() -> Space:
    return parse_space(SPACE, name="test", image_size=64)


def config(**changes: Any) -> StudyConfig:
    content = {"name": "test", "model": "a.pt", "data": "data.yaml", "image_size": 64, **changes}
    return StudyConfig.model_validate(content)


def result(leaf: Recipe) -> Record:
    """A world with one rule: what is smaller is faster and worse."""
    assert isinstance(leaf.prune, ChannelPrune)
    size = leaf.image_size / 64 * (1 - leaf.prune.ratio)
    return make_record(leaf, accuracy=0.6 * size**0.2, latency=size * (0.5 if leaf.quantize.kind == "int8" else 1))


def finish(suggester: Suggester, store: Records, name: str, task: Task, state: Any = "complete") -> None:
    records = [result(leaf).model_copy(update={"state": state}) for leaf in task.leaves]
    store.append([record.model_copy(update={"curve": ((3, 0.2),)}) for record in records])
    suggester.ended(name)


def run(suggester: Suggester, store: Records, count: int) -> list[Recipe]:
    tried = []
    for number in range(count):
        task = suggester.suggest(str(number))
        assert task is not None
        tried.append(task.leaves[0])
        finish(suggester, store, str(number), task, "stopped" if number % 4 == 3 else "complete")
    return tried


def test_after_a_few_trunks_candidates_are_compared(space: Space) -> None:
    store = Records([make_baseline()])
    suggester = Suggester(config(), space, store, first=[])
    run(suggester, store, 14)
    assert suggester.proposer.dropped["seen"] > 100
    tried = {record.recipe.trunk_id for record in store.searched}
    assert len(tried) == 14
    task = suggester.suggest("next")
    assert task is not None
    assert task.expected is not None
    assert len(task.expected.accuracy) == len(task.leaves) == 2
    assert task.expected.least > 0
    assert suggester.knowledge.predictor.errors().latency is not None


def test_one_candidate_takes_what_the_sampler_says(space: Space) -> None:
    store = Records([make_baseline()])
    suggester = Suggester(config(engine={"candidates": 1}), space, store, first=[])
    run(suggester, store, TRUNKS + 4)
    assert suggester.proposer.dropped == {}


@pytest.mark.parametrize("seed", range(6))
def test_before_there_are_predictions_the_shortest_of_a_few_draws_is_tried(space: Space, seed: int) -> None:
    def tried(candidates: int) -> tuple[str, list[Recipe]]:
        settings = config(seed=seed, engine={"candidates": candidates})
        suggester = Suggester(settings, space, Records([make_baseline()]), first=[])
        draws = list(itertools.islice(suggester.sampler.draws([], 0), FIRST))
        task = suggester.suggest("a")
        assert task is not None
        return task.leaves[0].trunk_id, draws

    trunk, draws = tried(1)
    assert trunk == draws[0].trunk_id
    trunk, draws = tried(64)
    assert trunk == min(draws, key=total_epochs).trunk_id


def test_the_same_seed_and_results_give_the_same_suggestions(space: Space) -> None:
    def tried() -> list[str]:
        store = Records([make_baseline()])
        return [recipe.id for recipe in run(Suggester(config(seed=4), space, store, first=[]), store, 12)]

    assert tried() == tried()


@pytest.mark.parametrize(("sampler", "ended"), [("tpe", 3), ("tpe", 9), ("tpe", 26), ("nsga2", 26), ("gp", 9)])
def test_a_resumed_study_suggests_what_the_uninterrupted_one_would_have(
    space: Space, sampler: SamplerName, ended: int
) -> None:
    """Three workers; trials end in no order that is theirs, and the driver is killed after so many of them."""
    settings, store, random = config(sampler=sampler), Records([make_baseline()]), Random(ended)
    live = Suggester(settings, space, store, first=starting_recipes(space, image_size=64))
    flying = {str(number): live.suggest(str(number)) for number in range(3)}
    for number in range(ended):
        name = random.choice(list(flying))
        task = flying.pop(name)
        assert task is not None
        finish(live, store, name, task, random.choice(["complete", "complete", "stopped"]))
        flying[f"next {number}"] = live.suggest(f"next {number}")
    again = Records(store.records.values(), store.started)
    resumed = Suggester(settings, space, again, first=in_flight(again, space))
    handed = [resumed.suggest(str(number)) for number in range(3)]
    assert [task and task.leaves for task in handed] == [task and task.leaves for task in flying.values()]
    for name in ("a", "b", "c"):
        ours, theirs = live.suggest(name), resumed.suggest(name)
        assert ours == theirs
        assert ours is not None
        assert theirs is not None
        finish(live, store, name, ours)
        finish(resumed, again, name, theirs)


def test_stopped_trials_are_pruned_and_never_complete(space: Space) -> None:
    store = Records([make_baseline()])
    suggester = Suggester(config(), space, store, first=[])
    run(suggester, store, 12)
    stopped = {record.id for record in store.searched if record.state == "stopped"}
    assert stopped
    states = {trial.state for trial in suggester.study().trials if trial.user_attrs.get("record") in stopped}
    assert states == {TrialState.PRUNED}
    complete = [trial for trial in suggester.study().trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == sum(record.state == "complete" for record in store.searched)
    assert not stopped & {entry.record.id for entry in suggester.knowledge.archive.front}


def test_trials_in_flight_are_told_apart(space: Space) -> None:
    store = Records([make_baseline()])
    suggester = Suggester(config(), space, store, first=[])
    run(suggester, store, 8)
    tasks = [suggester.suggest(f"flying {number}") for number in range(12)]
    trunks = [task.leaves[0].trunk_id for task in tasks if task]
    assert len(set(trunks)) == 12


def test_what_was_timed_meanwhile_is_known_of_what_is_in_flight(space: Space) -> None:
    """Latency and size of a shape do not depend on its training, so one trial's are also another's."""
    store = Records([make_baseline()])
    trunks = [space.nearest({"prune.channels.ratio": 0.5, "finetune.train.lr": lr}) for lr in (0.001, 0.01)]
    shapes = itertools.product((0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8), (32, 64), ("silu", "relu"))
    for ratio, size, activation in list(shapes)[2:]:  # so many that two more rows do not change what is predicted
        wanted = {"image_size": size, "activation": activation, "prune.channels.ratio": ratio}
        store.append([result(leaf) for leaf in space.leaves(space.nearest(wanted))])
    suggester = Suggester(config(), space, store, first=trunks)
    flying, other = suggester.suggest("flying"), suggester.suggest("other")
    assert flying is not None and other is not None
    (predicted, _), leaves = suggester.in_flight(), flying.leaves
    truth = [result(leaf).measurement for leaf in leaves]
    expected = [(m.latency.ratio, m.size_ratio) for m in truth if m is not None]
    assert predicted.doubt[:, 0].min() > 0
    version = suggester.knowledge.predictor.version
    finish(suggester, store, "other", other)
    assert suggester.knowledge.predictor.version == version
    (known,) = suggester.in_flight()
    np.testing.assert_allclose(known.costs, expected)
    assert known.doubt.max() == 0


def test_without_leaves_only_the_drawn_one_is_measured(space: Space) -> None:
    suggester = Suggester(config(engine={"leaves": False}), space, Records([make_baseline()]), first=[])
    task = suggester.suggest("a")
    assert task is not None
    assert len(task.leaves) == 1


def test_epochs_are_counted_over_records(space: Space) -> None:
    store = Records([make_baseline()])
    suggester = Suggester(config(), space, store, first=[])
    tried = run(suggester, store, 4)  # the fourth stops after 3 epochs
    spent = sum(recipe.finetune.epochs for recipe in tried[:3]) + 3  # type: ignore[union-attr]
    assert suggester.knowledge.epochs == spent
    assert not used_up(Budget(epochs=spent + 1), suggester.knowledge)
    assert used_up(Budget(epochs=spent), suggester.knowledge)
    assert not used_up(Budget(), suggester.knowledge)


@pytest.mark.parametrize(
    ("growth", "expected"),
    [
        ([0.50, 0.51, 0.52], False),  # two trials are asked, and grew by more
        ([0.50, 0.50, 0.504], True),  # 0.8 %
        ([0.50, 0.50, 0.505], False),  # 1 %
        ([0.50, 0.50], False),  # too few trials
        ([0.0, 0.0, 0.0, 0.0], False),  # nothing was found yet
        ([0.0, 0.0, 0.1], False),
        ([0.1, 0.5, 0.5, 0.5], True),
    ],
)
def test_a_stall_is_growth_over_so_many_trials(growth: list[float], expected: bool) -> None:
    assert stalled(growth, Stall(growth=0.01, trials=2)) == expected


def test_one_collapse_does_not_make_every_recipe_a_gamble(space: Space) -> None:
    """Learned as what it is, an accuracy of 0 among sixteen would be most of the error on unseen trunks.

    It is learned so where there is no limit: how little a recipe is worth is then worth knowing.
    """

    def error(**constraints: float) -> float:
        store = Records([make_baseline(accuracy=0.6)])
        for number in range(16):
            activation = ("silu", "relu")[number // 8]
            trunk = space.nearest({"prune.channels.ratio": 0.1 * (number % 8 + 1), "activation": activation})
            accuracy = 0.0 if number == 5 else 0.6 - 0.01 * number
            store.append([make_record(leaf, accuracy=accuracy) for leaf in space.leaves(trunk)])
        suggester = Suggester(config(constraints=constraints), space, store, first=[])
        suggester.suggest("a")
        found = suggester.knowledge.predictor.errors().accuracy
        assert found is not None
        return found

    assert error(max_accuracy_drop=0.1) < 0.8 * error()


def test_what_breaks_a_limit_is_nothing_to_beat(space: Space) -> None:
    """Beside an accuracy limit, a fast record below it leaves the front's place to those that keep it."""
    store = Records([make_baseline(accuracy=0.6)])
    trunk = space.nearest({"prune.channels.ratio": 0.8})
    store.append([make_record(leaf, accuracy=0.5, latency=0.1) for leaf in space.leaves(trunk)])
    limited = Suggester(config(constraints={"max_accuracy_drop": 0.02}), space, store, first=[])
    assert limited.knowledge.archive.front == []
    assert limited.knowledge.growth == [0.0]
    assert len(Suggester(config(), space, store, first=[]).knowledge.archive.front) == 1
