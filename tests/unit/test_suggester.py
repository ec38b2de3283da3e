"""The suggester as a whole: proposals, budgets, and that a new one from the same records knows the same."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

from search.engine.budget import stalled, used_up
from search.engine.suggester import TRUNKS, Suggester
from search.record import Record
from search.store import Records
from search.study import Budget, Stall, StudyConfig
from search.trial import Task
from spaces.parse import parse_space
from spaces.recipe import ChannelPrune, Recipe
from spaces.space import Space
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
    assert suggester.knowledge.predictor.errors().latency is not None


def test_one_candidate_takes_what_the_sampler_says(space: Space) -> None:
    store = Records([make_baseline()])
    suggester = Suggester(config(engine={"candidates": 1}), space, store, first=[])
    run(suggester, store, TRUNKS + 4)
    assert suggester.proposer.dropped == {}


def test_the_same_seed_and_results_give_the_same_suggestions(space: Space) -> None:
    def tried() -> list[str]:
        store = Records([make_baseline()])
        return [recipe.id for recipe in run(Suggester(config(seed=4), space, store, first=[]), store, 12)]

    assert tried() == tried()


def test_a_suggester_from_the_same_records_knows_the_same(space: Space) -> None:
    store = Records([make_baseline()])
    live = Suggester(config(), space, store, first=[])
    run(live, store, 12)
    again = Suggester(config(), space, Records(store.records.values(), store.started), first=[])
    assert again.knowledge.growth == live.knowledge.growth
    assert again.knowledge.epochs == live.knowledge.epochs
    assert again.knowledge.trunks == live.knowledge.trunks
    assert [e.record.id for e in again.knowledge.archive.front] == [e.record.id for e in live.knowledge.archive.front]
    probe = [space.nearest({"prune.channels.ratio": 0.3, "image_size": 32})]
    for own, other in zip(again.proposer.expect(probe), live.proposer.expect(probe), strict=True):
        assert own.costs == pytest.approx(other.costs, rel=0.2)


def test_stopped_trials_are_pruned_and_never_complete(space: Space) -> None:
    store = Records([make_baseline()])
    suggester = Suggester(config(), space, store, first=[])
    run(suggester, store, 12)
    stopped = {record.id for record in store.searched if record.state == "stopped"}
    assert stopped
    states = {trial.state for trial in suggester.sampler.study.trials if trial.user_attrs.get("record") in stopped}
    assert states == {TrialState.PRUNED}
    complete = [trial for trial in suggester.sampler.study.trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == sum(record.state == "complete" for record in store.searched)
    assert not stopped & {entry.record.id for entry in suggester.knowledge.archive.front}


def test_trials_in_flight_are_told_apart(space: Space) -> None:
    store = Records([make_baseline()])
    suggester = Suggester(config(), space, store, first=[])
    run(suggester, store, 8)
    tasks = [suggester.suggest(f"flying {number}") for number in range(12)]
    trunks = [task.leaves[0].trunk_id for task in tasks if task]
    assert len(set(trunks)) == 12
    sizes = {(task.leaves[0].image_size, task.leaves[0].prune) for task in tasks if task}
    assert len(sizes) >= 6  # they do not all try the same


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
