"""Samplers: limits change what is suggested, earlier studies tell where to look, and auto says what it is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.engine import samplers
from search.engine.samplers import AUTO, SamplerStudy, chosen_sampler, make_sampler, violations
from search.engine.suggester import Suggester
from search.engine.warm import hints
from search.record import State
from search.store import Records, Store, write_atomically
from search.study import Constraints, SamplerName, StudyConfig
from spaces.parse import parse_space
from spaces.recipe import ChannelPrune, Finetune, Recipe
from spaces.space import Space
from tests.fakes import make_baseline, make_record

SPACE: dict[str, Any] = {
    "image_size": [64],
    "activation": ["silu", "relu"],
    "prune": {"kind": "channels", "ratio": {"low": 0.01, "high": 0.99}},
    "finetune": {"kind": "train", "epochs": 10, "lr": {"low": 0.0001, "high": 0.1, "log": True}},
}


@pytest.fixture
def space() -> Space:
    return parse_space(SPACE, name="test", image_size=64)


def config(**changes: Any) -> StudyConfig:
    content = {"name": "test", "model": "a.pt", "data": "data.yaml", "image_size": 64, **changes}
    return StudyConfig.model_validate(content)


def recipe(ratio: float, lr: float = 0.01) -> Recipe:
    return Recipe(image_size=64, prune=ChannelPrune(ratio=ratio), finetune=Finetune(epochs=10, lr=lr))


def told(space: Space, name: SamplerName, limits: Constraints) -> SamplerStudy:
    """A study that knows forty recipes, evenly spread: accuracy and latency both fall with the ratio, in lines."""
    study = SamplerStudy(space, name, 0, ("accuracy", "latency"), limits)
    for ratio in np.linspace(0.02, 0.98, 40):
        study.add(make_record(recipe(float(ratio)), accuracy=0.6 - 0.5 * ratio, latency=1 - ratio), make_baseline())
    return study


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_limits_change_what_is_suggested(space: Space, name: SamplerName) -> None:
    """Without limits every ratio is on the front; with this one only those above 0.7 keep it."""

    def share_within(limits: Constraints) -> float:
        study = told(space, name, limits)
        drawn = []
        for turn in range(70):
            suggested = next(study.draws([], turn))
            drawn.append(suggested.prune.ratio)  # type: ignore[union-attr]
            ratio = drawn[-1]
            study.add(make_record(suggested, accuracy=0.6 - 0.5 * ratio, latency=1 - ratio), make_baseline())
        return float(np.mean([ratio > 0.7 for ratio in drawn[-20:]]))

    limited = share_within(Constraints(max_latency_ratio=0.3))
    assert limited >= 0.5  # by chance it would be 0.3
    assert limited > share_within(Constraints()) + 0.2


def test_violations_are_in_the_limits_units() -> None:
    record = make_record(recipe(0.5), accuracy=0.55, latency=0.4, size=0.3)  # 4 ms, 3 MB, 0.05 below the baseline
    limits = Constraints(max_accuracy_drop=0.02, max_latency_ratio=0.5, max_latency_ms=3, max_size_mb=3)
    found = violations(record, make_baseline(), limits)
    assert found == pytest.approx(
        {"accuracy drop": 0.03, "latency ratio": -0.1, "latency in ms": 1.0, "size in MB": 0.0}
    )  # fmt: skip
    untrained = make_record(recipe(0.5), accuracy=None, latency=0.4, state="screened")
    assert violations(untrained, make_baseline(), limits).keys() == found.keys() - {"accuracy drop"}
    assert violations(record, make_baseline(), Constraints()) == {}
    assert record.measurement is not None
    busy = replace(record.measurement.latency, p50_ms=8.0, baseline_p50_ms=20.0, waiting=0.5)
    loaded = record.model_copy(update={"measurement": record.measurement.model_copy(update={"latency": busy})})
    assert violations(loaded, make_baseline(), limits) == pytest.approx(found)  # others' time is not the file's


def test_constraints_reach_optuna(space: Space) -> None:
    study = SamplerStudy(space, "random", 0, ("accuracy", "latency"), Constraints(max_latency_ratio=0.3))
    study.add(make_record(recipe(0.75), latency=0.5), make_baseline())
    study.add(make_record(recipe(0.25), latency=0.2), make_baseline())
    told = study.study([], 0)
    assert [t.constraints for t in told.trials] == [
        {"latency ratio": pytest.approx(0.2)},
        {"latency ratio": pytest.approx(-0.1)},
    ]
    assert [t.values[1] for t in told.best_trials] == [0.2]  # Optuna knows which one is feasible


def earlier_study(folder: Path, *, best_lr: float, baseline: float, image_size: int = 64) -> Path:
    """A study folder whose front is at one learning rate, on data where everything is harder."""
    folder.mkdir()
    settings = config(image_size=image_size)
    write_atomically(folder / "study.yaml", settings.to_yaml())
    store = Store(folder)
    store.append([make_baseline(accuracy=baseline)])
    for ratio in np.linspace(0.05, 0.95, 6):
        for lr in np.geomspace(0.0001, 0.1, 7):
            lost = 0.2 * abs(math.log10(lr / best_lr))
            own = recipe(float(ratio), float(lr)).model_copy(update={"image_size": image_size})
            store.append([make_record(own, accuracy=max(0.01, baseline - lost), latency=float(1 - ratio))])
    return folder


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("best_lr", [0.0003, 0.03])
def test_a_warm_start_suggests_near_the_old_optimum(
    space: Space, tmp_path: Path, sampler: SamplerName, best_lr: float
) -> None:
    old = earlier_study(tmp_path / "old", best_lr=best_lr, baseline=0.4)

    def distances(**changes: Any) -> list[float]:
        """Decades between the old optimum and the learning rates of the first suggestions."""
        store = Records([make_baseline()])
        suggester = Suggester(config(sampler=sampler, **changes), space, store, first=[])
        tasks = [suggester.suggest(str(index)) for index in range(8)]
        return [abs(math.log10(task.leaves[0].finetune.lr / best_lr)) for task in tasks if task]  # type: ignore[union-attr]

    warm, cold = distances(warm_start=[str(old)]), distances()
    assert np.median(warm) < 0.5
    assert np.median(warm) < np.median(cold)


def test_hints_are_moved_to_the_new_baseline_and_image_size() -> None:
    old = Records([make_baseline(accuracy=0.4), make_record(recipe(0.5), accuracy=0.3, latency=0.2, size=0.1)])
    old.append([make_record(recipe(0.6), state="stopped"), make_record(recipe(0.7), state="failed")])
    (hint,) = hints(old, baseline=make_baseline(accuracy=0.6), scale=2.0)
    assert (hint.accuracy, hint.latency, hint.size) == pytest.approx((0.5, 0.2, 0.1))
    assert hint.recipe == recipe(0.5).model_copy(update={"image_size": 128})


def test_hints_are_no_results(space: Space, tmp_path: Path) -> None:
    old = earlier_study(tmp_path / "old", best_lr=0.01, baseline=0.9)
    suggester = Suggester(config(warm_start=[str(old)]), space, Records([make_baseline()]), first=[])
    assert suggester.knowledge.archive.front == []
    assert suggester.knowledge.trunks == set()
    task = suggester.suggest("a")
    assert task is not None
    assert task.bar is not None
    assert task.bar.rivals == ()
    assert task.bar.reachable_accuracy == 0.6


@pytest.mark.parametrize("name", get_args(SamplerName))
def test_every_sampler_draws_from_the_space(space: Space, name: SamplerName) -> None:
    study = SamplerStudy(space, name, 0, ("accuracy", "latency"), Constraints())
    for number in range(14):  # beyond the random draws that every sampler begins with
        suggested = next(study.draws([], number))
        assert space.params(suggested) is not None
        study.add(make_record(suggested, accuracy=0.5 + 0.01 * number, latency=0.5), make_baseline())


@pytest.mark.parametrize("name", ["tpe", "nsga2", "gp"])
def test_a_sampler_learns(space: Space, name: SamplerName) -> None:
    """Beside one learning rate, every recipe is dominated: draws come near it, closer than by chance."""
    study, best = SamplerStudy(space, name, 0, ("accuracy", "latency"), Constraints()), 0.001

    def lost(own: Recipe) -> float:
        return abs(math.log10(own.finetune.lr / best))  # type: ignore[union-attr]

    drawn = []
    for turn in range(60 if name == "nsga2" else 20):
        drawn.append(next(study.draws([], turn)))
        study.add(make_record(drawn[-1], accuracy=0.6 - 0.2 * lost(drawn[-1]), latency=0.5), make_baseline())
    chance = np.mean(np.abs(np.random.default_rng(0).uniform(-4, -1, 1000) + 3))  # 0.83 decades
    assert np.mean([lost(own) for own in drawn[-8:]]) < 0.7 * chance


def test_auto_says_what_it_chose() -> None:
    assert chosen_sampler("auto") == AUTO != "auto"
    assert type(make_sampler("auto", 0)) is type(make_sampler(AUTO, 0))
    assert chosen_sampler("nsga2") == "nsga2"
    assert isinstance(make_sampler("gp", 0), optuna.samplers.GPSampler)


def test_a_draw_follows_from_records_flight_and_turn(space: Space) -> None:
    def draws(in_flight: list[Recipe], turn: int, ratios: tuple[float, ...] = (0.2, 0.4, 0.6)) -> list[Recipe]:
        study = SamplerStudy(space, "tpe", 0, ("accuracy", "latency"), Constraints())
        for ratio in ratios * 4:
            study.add(make_record(recipe(ratio), accuracy=0.6 - ratio / 2, latency=1 - ratio), make_baseline())
        return list(islice(study.draws(in_flight, turn), 3))

    same = draws([recipe(0.5)], 7)
    assert same == draws([recipe(0.5)], 7)
    assert same != draws([recipe(0.5)], 8)
    assert same != draws([recipe(0.5 + number / 1000) for number in range(30)], 7)
    assert same != draws([recipe(0.5)], 7, (0.7, 0.8, 0.9))
    assert len({own.id for own in same}) == 3  # each draw knows the ones before


def test_a_long_study_remembers_the_best_the_latest_and_what_is_in_flight(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "FULL", 40)
    monkeypatch.setattr(samplers, "REMEMBERED", 10)
    study = SamplerStudy(space, "tpe", 0, ("accuracy", "latency"), Constraints())
    study.add(make_record(recipe(0.5), accuracy=0.9, latency=0.1), make_baseline())
    for number in range(60):
        study.add(make_record(recipe(0.3 + number / 200), accuracy=0.3, latency=0.5), make_baseline())
    trials = study.study([recipe(0.123)], 0).trials
    assert len(trials) <= 42
    assert [trial.params["prune.channels.ratio"] for trial in trials[-2:]] == [0.595, 0.123]
    assert trials[-1].state == TrialState.RUNNING
    assert sum(trial.values == [0.9, 0.1] for trial in trials) == 1


def test_auto_is_the_sampler_that_did_best_in_the_simulator() -> None:
    path = Path(__file__).resolve().parents[2] / "results" / "simulator" / "samplers.json"
    engines = json.loads(path.read_text(encoding="utf-8"))["engines"]
    ratios = {
        name.removeprefix("ours, "): [engine[f"epochs_ratio_vs_{other}"]["median"] for other in ("random", "optuna")]
        for name, engine in engines.items()
        if name.startswith("ours, ")
    }
    assert set(ratios) == {"tpe", "nsga2", "gp", "random"}
    assert chosen_sampler("auto") == min(ratios, key=lambda name: sum(ratios[name]))


States = st.lists(st.sampled_from(["complete", "stopped", "screened", "failed"]), min_size=1, max_size=30)


@settings(max_examples=40)
@given(states=States)
def test_only_what_is_complete_is_ever_told_as_complete(states: list[State]) -> None:
    space = parse_space(SPACE, name="test", image_size=64)
    study = SamplerStudy(space, "random", 0, ("accuracy", "latency"), Constraints())
    for number, state in enumerate(states):
        study.add(make_record(recipe(0.1 + number / 40), state=state, accuracy=0.9), make_baseline())
    told = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}
    trials = study.study([], 0).trials
    assert [trial.state for trial in trials] == [told.get(state, TrialState.PRUNED) for state in states]
    assert [trial.values is not None for trial in trials] == [state == "complete" for state in states]
