"""The strict searcher: every trial ends in the state that it earned, and a resumed search knows all of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.searcher import StrictOptunaSearch
from search.store import Store
from search.study import StudyConfig
from search.trial import Task
from spaces.parse import parse_space
from spaces.recipe import Recipe
from spaces.space import Space
from spaces.starts import starting_recipes
from tests.fakes import make_baseline, make_record

SPACE: dict[str, Any] = {
    "image_size": [32, 64],
    "activation": ["silu", "relu"],
    "prune": [{"kind": "none"}, {"kind": "channels", "ratio": {"low": 0.1, "high": 0.6, "step": 0.1}}],
    "finetune": [{"kind": "none"}, {"kind": "train", "epochs": {"low": 1, "high": 5}}],
    "quantize": [{"kind": "fp32"}, {"kind": "int8"}],
}


@pytest.fixture
def space() -> Space:
    return parse_space(SPACE, name="test", image_size=64)


def make_config(**changes: Any) -> StudyConfig:
    content = {"name": "test", "model": "a.pt", "data": "data.yaml", "image_size": 64, **changes}
    return StudyConfig.model_validate(content)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.append([make_baseline()])
    return store


def make_searcher(
    space: Space, store: Store, *, first: list[Recipe] | None = None, trials: int | None = None, **changes: Any
) -> StrictOptunaSearch:
    config = make_config(**changes)
    return StrictOptunaSearch(config, space, store, first=first or [], trials=trials, deadline=math.inf)


def task_of(suggested: object) -> Task:
    assert isinstance(suggested, dict)
    return Task.model_validate_json(suggested["task"])


def states(searcher: StrictOptunaSearch) -> list[TrialState]:
    return [trial.state for trial in searcher.study.trials]


def end(searcher: StrictOptunaSearch, store: Store, trial_id: str, task: Task, **results: Any) -> None:
    """Ends a trial as Ray Tune does: the records are stored, then the searcher is told."""
    store.append([make_record(leaf, **results) for leaf in task.leaves])
    searcher.on_trial_complete(trial_id, {"records": "[]"})


def test_every_leaf_of_a_trunk_is_told_as_a_finished_trial(space: Space, store: Store) -> None:
    searcher = make_searcher(space, store)
    task = task_of(searcher.suggest("a"))
    assert [leaf.quantize.kind for leaf in task.leaves] == ["fp32", "int8"]
    assert states(searcher) == [TrialState.RUNNING]
    end(searcher, store, "a", task, accuracy=0.4, latency=0.3)
    assert states(searcher) == [TrialState.COMPLETE, TrialState.COMPLETE]
    assert [trial.values for trial in searcher.study.trials] == [[0.4, 0.3], [0.4, 0.3]]
    kinds = {trial.params["quantize.kind"] for trial in searcher.study.trials}
    assert kinds == {"fp32", "int8"}


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_and_leaves_nothing_running(
    space: Space, store: Store, accuracy: float
) -> None:
    searcher = make_searcher(space, store)
    task = task_of(searcher.suggest("a"))
    end(searcher, store, "a", task, accuracy=accuracy)
    assert set(states(searcher)) == {TrialState.FAIL}


def test_a_crash_leaves_nothing_running(space: Space, store: Store) -> None:
    searcher = make_searcher(space, store)
    searcher.suggest("a")
    searcher.on_trial_complete("a", None, error=True)  # before the driver stores anything
    assert states(searcher) == []


@pytest.mark.parametrize("state", ["screened", "stopped"])
def test_what_did_not_finish_never_counts_as_finished(space: Space, store: Store, state: Any) -> None:
    searcher = make_searcher(space, store)
    task = task_of(searcher.suggest("a"))
    end(searcher, store, "a", task, state=state, accuracy=0.9, latency=0.01)  # it would dominate everything
    assert set(states(searcher)) == {TrialState.PRUNED}
    assert searcher.study.best_trials == []
    assert all(trial.values is None for trial in searcher.study.trials)
    assert task_of(searcher.suggest("b")).bar.rivals == ()  # type: ignore[union-attr]


def test_a_resumed_search_knows_every_record(space: Space, store: Store, tmp_path: Path) -> None:
    searcher = make_searcher(space, store)
    for index in range(6):
        end(searcher, store, str(index), task_of(searcher.suggest(str(index))), accuracy=0.1 * index, latency=0.5)
    resumed = make_searcher(space, Store(tmp_path))
    known = lambda s: sorted((sorted(t.params.items(), key=str), t.values, t.state) for t in s.study.trials)  # noqa: E731
    assert str(known(resumed)) == str(known(searcher))


def test_trunks_that_were_tried_or_are_in_flight_are_not_suggested_again(space: Space, store: Store) -> None:
    searcher = make_searcher(space, store)
    trunks = []
    for index in range(40):
        suggested = searcher.suggest(str(index))
        if suggested == "FINISHED":
            break
        task = task_of(suggested)
        trunks.append(task.leaves[0].trunk_id)
        if index % 2:  # every other one stays in flight
            end(searcher, store, str(index), task)
    assert len(trunks) == len(set(trunks)) >= 20


def test_a_space_that_is_used_up_ends_the_search(store: Store) -> None:
    tiny = parse_space({"image_size": [32, 64], "quantize": [{"kind": "fp32"}]}, name="tiny", image_size=64)
    searcher = make_searcher(tiny, store)
    assert len({task_of(searcher.suggest(str(i))).leaves[0].image_size for i in range(2)}) == 2
    assert searcher.suggest("c") == "FINISHED"


def test_no_more_is_handed_out_than_there_is_room_for(space: Space, store: Store) -> None:
    room = [1]
    searcher = StrictOptunaSearch(
        make_config(), space, store, first=[], trials=4, deadline=math.inf, room=lambda: room[0]
    )  # fmt: skip
    first = task_of(searcher.suggest("a"))
    assert searcher.suggest("b") is None and len(store.started) == 1  # it is not even chosen
    room[0] = 2  # a node came
    second = task_of(searcher.suggest("c"))
    room[0] = 1  # and went; its trial waits for another
    end(searcher, store, "a", first)
    assert searcher.suggest("d") is None
    end(searcher, store, "c", second)
    end(searcher, store, "e", task_of(searcher.suggest("e")))
    end(searcher, store, "f", task_of(searcher.suggest("f")))
    room[0] = 0
    assert searcher.suggest("g") == "FINISHED"  # the budget ends a search that no node is left for


def test_starting_recipes_come_first_and_are_known_to_the_sampler(space: Space, store: Store) -> None:
    first = starting_recipes(space, image_size=64)
    searcher = make_searcher(space, store, first=first, trials=4)
    given = [task_of(searcher.suggest(str(index))).leaves[0].trunk_id for index in range(4)]
    assert given[: len(first)] == [recipe.trunk_id for recipe in first]
    assert given[-1] not in given[:-1]
    assert searcher.suggest("more") == "FINISHED"  # the budget is used up
    for recipe, trial in zip(first, searcher.study.trials, strict=False):
        asked = space.params(recipe)
        assert asked is not None
        assert trial.params == {name: value for name, (value, _) in asked.items()}


def test_only_the_missing_leaves_of_a_trunk_are_asked_for(space: Space, store: Store) -> None:
    recipe = starting_recipes(space, image_size=64)[0]
    done, missing = space.leaves(recipe)
    store.append([make_record(done)])
    searcher = make_searcher(space, store, first=[recipe])
    assert task_of(searcher.suggest("a")).leaves == (missing,)
    end(searcher, store, "a", Task(leaves=(missing,)))
    complete = [trial for trial in searcher.study.trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == 2


def test_the_bar_holds_the_front_and_the_baseline(space: Space, store: Store) -> None:
    searcher = make_searcher(space, store)
    recipes = [Recipe(image_size=64, activation=name) for name in ("silu", "relu")]
    store.append(
        [make_record(recipes[0], accuracy=0.5, latency=0.5), make_record(recipes[1], accuracy=0.4, latency=0.6)]
    )
    bar = task_of(searcher.suggest("a")).bar
    assert bar is not None
    assert bar.reachable_accuracy == 0.6  # the baseline's
    assert [rival.id for rival in bar.rivals] == [recipes[0].id]
    store.append([make_record(Recipe(image_size=32), accuracy=0.7, latency=0.7)])
    better = task_of(searcher.suggest("b")).bar
    assert better is not None
    assert better.reachable_accuracy == 0.7


def test_the_same_seed_and_results_give_the_same_suggestions(space: Space, tmp_path: Path) -> None:
    def suggestions(folder: str) -> list[str]:
        (tmp_path / folder).mkdir()
        store = Store(tmp_path / folder)
        store.append([make_baseline()])
        searcher, found = make_searcher(space, store, seed=3), []
        for index in range(8):
            task = task_of(searcher.suggest(str(index)))
            found.append(task.leaves[0].trunk_id)
            ratio = task.leaves[0].image_size / 64
            end(searcher, store, str(index), task, accuracy=0.5 * ratio, latency=ratio)
        return found

    assert suggestions("one") == suggestions("two")
