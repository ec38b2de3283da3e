"""The simulator: time against schedules worked by hand, a surrogate against what it was made from, and the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from search.__main__ import app
from search.engine.rungs import RungSettings
from search.errors import UserError
from search.simulate import engines
from search.simulate.clock import Clock
from search.simulate.compare import CENSORED, SETS, compare, interval, run_seed, summary
from search.simulate.curves import CurveFamily, fit_curves
from search.simulate.plot import height, plot
from search.simulate.process import Process
from search.simulate.recorded import CURVES, Curve, Recorded, read
from search.simulate.replay import Replay, Step, Trajectory
from search.simulate.scale import measure
from search.simulate.surrogate import LATENCY_NOISE, Surrogate
from search.store import Store, write_atomically
from search.study import SamplerName, StudyConfig
from spaces.recipe import ChannelPrune, Finetune, Recipe
from tests.fakes import make_baseline, make_record

SPACE = """
activation: [silu, relu]
prune:
  - {kind: none}
  - {kind: channels, ratio: {low: 0.1, high: 0.7, step: 0.1}}
finetune: {kind: train, epochs: [4, 8], lr: {low: 0.001, high: 0.01, log: true}}
quantize: [{kind: fp32}, {kind: int8}]
"""


def curve_of(final: float, epochs: int) -> tuple[tuple[int, float], ...]:
    def relative(epoch: int) -> float:
        return (1 - 0.9 * math.exp(-epoch / 2)) * (0.8 + 0.2 * epoch / epochs)

    return (*((epoch, round(final * relative(epoch), 4)) for epoch in range(1, epochs)), (epochs, final))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("study")
    (folder / "space.yaml").write_text(SPACE)
    config = StudyConfig(
        name="toy", model="a.pt", data=Path("data.yaml"), image_size=64, space=str(folder / "space.yaml")
    )  # fmt: skip
    write_atomically(folder / "study.yaml", config.to_yaml())
    store, space, lines = Store(folder), config.load_space(), []
    store.append([make_baseline()])
    for number in range(10):
        ratio, epochs = 0.1 * (number % 7 + 1), (4, 8)[number % 2]
        recipe = Recipe(
            image_size=64,
            activation=("silu", "relu")[number // 5],
            prune=ChannelPrune(ratio=round(ratio, 1)),
            finetune=Finetune(epochs=epochs, lr=0.001 * (number + 1)),
        )
        final = 0.6 - 0.2 * ratio**2 - 0.02 * (epochs == 4)
        for leaf in space.leaves(recipe):
            int8 = leaf.quantize.kind == "int8"
            latency, size = (1 - ratio) * (0.5 if int8 else 1.0), (1 - ratio) ** 2 * (0.25 if int8 else 1.0)
            record = make_record(leaf, accuracy=final - 0.01 * int8, latency=latency, size=size)
            seconds = {"shape": 1.0, "screen": 5.0, "train": 10.0 * epochs * (1 - ratio / 2), "measure": 7.0}
            store.append([record.model_copy(update={"seconds": seconds, "curve": curve_of(final, epochs)})])
        lines.append(Curve(recipe=recipe, seed=1, curve=curve_of(final + 0.01, epochs), epoch_seconds=1.0))
    (folder / CURVES).write_text("".join(line.model_dump_json() + "\n" for line in lines[:2]))
    return read([folder])


@pytest.fixture(scope="module")
def surrogate(recorded: Recorded) -> Surrogate:
    return Surrogate(recorded)


def test_events_come_in_the_order_of_their_time_then_of_their_arrival() -> None:
    clock, seen = Clock(), list[tuple[str, float]]()

    def note(name: str) -> None:
        seen.append((name, clock.now))
        if name == "a":
            clock.after(1.0, partial(note, "after a"))

    for name, seconds in (("late", 5.0), ("a", 2.0), ("b", 2.0), ("now", 0.0)):
        clock.after(seconds, partial(note, name))
    clock.run()
    assert seen == [("now", 0.0), ("a", 2.0), ("b", 2.0), ("after a", 3.0), ("late", 5.0)]
    with pytest.raises(ValueError, match="-1"):
        clock.after(-1.0, lambda: None)


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_a_replay_takes_the_time_of_list_scheduling(surrogate: Surrogate, workers: int) -> None:
    """Trials in order, each on the worker that is free first: the time of each end by a second way."""
    config, world = surrogate.recorded.config, surrogate.world(3)
    replay = Replay(engines.random(), world, config, config.load_space(), workers=workers, trials=7)
    found = replay.run()
    free, ends = [0.0] * workers, []
    for recipe in [record.recipe for record in sorted_by_start(replay)]:
        worker = free.index(min(free))
        assert recipe.finetune.kind == "train"
        free[worker] += recipe.finetune.epochs * world.epoch_seconds(recipe) + world.measure_seconds
        ends.append(free[worker])
    assert [step.seconds for step in found.steps] == pytest.approx(sorted(ends))
    assert found.epochs == sum(r.recipe.finetune.epochs for r in replay._store.searched)  # type: ignore[union-attr]


def sorted_by_start(replay: Replay) -> list[Any]:
    """Records in the order in which their trials were handed out: plain search draws the same again."""
    config = replay._config
    again = Replay(engines.random(), replay._world, config, config.load_space(), workers=1, trials=7)
    again.run()
    return again._store.searched


def test_rungs_stop_trials_and_only_what_was_trained_is_counted(surrogate: Surrogate) -> None:
    config = surrogate.recorded.config
    spec = engines.ours(rungs=RungSettings(base=2, eta=2, keep=0.34, grace=2))
    replay = Replay(spec, surrogate.world(0), config, config.load_space(), workers=2, trials=16)
    found = replay.run()
    stopped = [record for record in replay._store.searched if record.state == "stopped"]
    assert stopped
    assert all(record.curve[-1][0] in (2, 4) and record.measurement.accuracy is None for record in stopped)  # type: ignore[union-attr]
    spent = replay._engine.knowledge.epochs  # type: ignore[attr-defined]
    assert found.epochs == spent
    assert not {r.id for r in stopped} & {e.record.id for e in replay._archive.front}


def test_the_same_seed_replays_the_same(surrogate: Surrogate) -> None:
    config = surrogate.recorded.config

    def steps(seed: int) -> list[Step]:
        own = config.model_copy(update={"seed": seed})
        return Replay(engines.ours(), surrogate.world(1), own, own.load_space(), workers=3, trials=8).run().steps

    assert steps(5) == steps(5)
    assert steps(5) != steps(6)


def test_a_world_answers_every_question_once(surrogate: Surrogate) -> None:
    recipe = Recipe(image_size=64, prune=ChannelPrune(ratio=0.3), finetune=Finetune(epochs=8, lr=0.004))
    worlds = [surrogate.world(1), surrogate.world(1), surrogate.world(2)]
    answers = [
        (world.measured(recipe, accuracy=True), world.accuracy_at(recipe, 4), world.epoch_seconds(recipe))
        for world in worlds
    ]
    assert answers[0] == answers[1] != answers[2]
    end = [world.accuracy_at(recipe, 8) for world in worlds]
    assert end == [pytest.approx(world.final(recipe)) for world in worlds]
    assert worlds[0].measured(recipe, accuracy=False).accuracy is None


def test_latency_and_size_have_nothing_to_do_with_training(surrogate: Surrogate) -> None:
    world, shape = surrogate.world(3), ChannelPrune(ratio=0.3)
    tunes = [Finetune(epochs=epochs, lr=lr) for epochs in (4, 8) for lr in (0.001, 0.009)]
    recipes = [Recipe(image_size=64, prune=shape, finetune=tune) for tune in tunes]
    found = [world.measured(recipe, accuracy=False) for recipe in recipes]
    assert len({own.size_bytes for own in found}) == 1
    ratios = [own.latency.ratio for own in found]
    assert ratios == pytest.approx([np.mean(ratios)] * 4, rel=4 * LATENCY_NOISE)
    assert len({world.final(recipe) for recipe in recipes}) == 4


def test_worlds_agree_with_the_records_and_differ_elsewhere(surrogate: Surrogate, recorded: Recorded) -> None:
    worlds = [surrogate.world(seed) for seed in range(12)]
    final = recorded.finals[3]
    seen = [world.final(final.recipe) for world in worlds]
    far = Recipe(image_size=64, activation="relu", finetune=Finetune(epochs=8, lr=0.001))
    unseen = [world.final(far) for world in worlds]
    assert np.mean(seen) == pytest.approx(final.accuracy, abs=0.01)
    assert np.std(np.log(surrogate.top - np.array(unseen))) > np.std(np.log(surrogate.top - np.array(seen)))
    latency = [world.measured(final.recipe, accuracy=False).latency.ratio for world in worlds]
    assert np.mean(latency) == pytest.approx(1 - final.recipe.prune.ratio, rel=0.05)  # type: ignore[union-attr]


def test_errors_of_the_fit_are_stated(surrogate: Surrogate) -> None:
    errors = surrogate.errors()
    assert errors.accuracy < errors.accuracy_deviation
    assert errors.latency < errors.latency_deviation
    assert (errors.shapes, errors.trained, errors.curves) == (10, 10, 12)


def test_draws_of_a_process_pass_through_what_is_certain() -> None:
    X = np.linspace(0, 3, 12)[:, None]
    process = Process(X, np.sin(2 * X[:, 0]), least_noise=0.01)
    draws = np.array([process.draw(np.random.default_rng(seed))(X) for seed in range(20)])
    assert np.abs(draws - np.sin(2 * X[:, 0])).max() < 0.1
    beyond = np.array([process.draw(np.random.default_rng(seed))(np.array([[9.0]]))[0] for seed in range(20)])
    assert beyond.std() > 10 * draws.std(axis=0).max()
    assert process.error([str(index) for index in range(12)]) < 0.3 * np.sin(2 * X[:, 0]).std()


def test_a_curve_family_is_found_again() -> None:
    truth = CurveFamily(tau=4.0, power=1.1, drag=0.4, fall=1.3, spread=0.3, noise=0.02, curves=0, error=0.0)
    random, curves = np.random.default_rng(0), []
    for number in range(12):
        total, tau = (10, 20, 40)[number % 3], truth.tau * math.exp(truth.spread * random.normal())
        epochs = np.arange(1, total + 1)
        noise = np.array([truth.deviation(float(e), total) for e in epochs]) * random.normal(size=total)
        accuracy = 0.5 * (truth.relative(epochs, total, tau=tau) + noise)
        curves.append(list(zip(epochs.tolist(), accuracy.tolist(), strict=True)))
    found = fit_curves(curves)
    assert found.noise == pytest.approx(truth.noise, rel=0.3)
    for epoch, total in ((3, 10), (9, 40), (27, 40)):
        expected = float(truth.relative(epoch, total, tau=truth.tau))
        assert float(found.relative(epoch, total, tau=found.tau)) == pytest.approx(expected, abs=0.08)
    assert float(found.relative(40, 40, tau=found.tau)) == 1.0


def test_ratios_are_epochs_to_the_target(surrogate: Surrogate, recorded: Recorded) -> None:
    result = run_seed(surrogate, 0, 2, [engines.ours()], trials=16)
    assert result.outcomes["random"].trajectory.trials == 16
    assert result.outcomes["random"].epochs_vs_random is not None
    assert result.outcomes["random"].epochs_vs_random <= 1.0
    own = result.outcomes["ours"]
    assert own.epochs_vs_random == own.trajectory.epochs_to(result.targets["random"]) / result.epochs["random"]  # type: ignore[operator]
    found = summary([result], recorded, workers=2)
    assert found["epochs_ratio_vs_random"] == own.epochs_vs_random
    assert {"epochs_ratio_vs_optuna", "epochs_ratio_vs_optuna_interval", "engines", "surrogate"} <= set(found)
    assert json.loads(json.dumps(found)) == found


def test_what_was_not_reached_counts_as_censored() -> None:
    steps = [Step(epochs=10, seconds=5.0, hypervolume=0.2), Step(epochs=30, seconds=9.0, hypervolume=0.4)]
    trajectory = Trajectory(steps=steps)
    assert [trajectory.epochs_to(volume) for volume in (0.1, 0.2, 0.3, 0.5)] == [10, 10, 30, None]
    assert trajectory.seconds_to(0.4) == 9.0
    assert height(trajectory, "epochs", np.array([0.0, 10.0, 29.0, 31.0])).tolist() == [0.0, 0.2, 0.2, 0.4]
    assert CENSORED > 1


def test_the_interval_is_that_of_the_median() -> None:
    low, high = interval(np.arange(101.0))
    assert low < 50 < high
    assert 25 < low < 45
    assert 55 < high < 75
    assert interval(np.full(5, 0.3)) == [0.3, 0.3]


def test_every_part_and_every_sampler_has_an_engine() -> None:
    parts = {spec.name for spec in SETS["parts"]()}
    assert {"ours", "- rungs", "- latency first", "- leaves", "- sampler"} <= parts
    assert {f"ours, {name}" for name in get_args(SamplerName) if name != "auto"} == {s.name for s in SETS["samplers"]()}


def test_a_large_study_is_timed(recorded: Recorded) -> None:
    config = recorded.config.model_copy(update={"rungs": RungSettings(base=2, eta=2)})
    found = measure(replace(recorded, config=config), finished=20, workers=5, calls=6)
    assert (found.finished, found.in_flight, found.suggestion.calls, found.end.calls) == (20, 5, 6, 6)
    assert found.records == 1 + 2 * (20 + 6)  # the baseline, and both leaves of every trunk
    assert found.decision.calls >= 6
    assert 0 < found.suggestion.p50 <= found.suggestion.p99 <= found.suggestion.max
    assert found.memory_mb > 50


def test_the_plot_is_written_whole(surrogate: Surrogate, recorded: Recorded, tmp_path: Path) -> None:
    plot(compare(recorded, seeds=1, workers=1, specs=[], trials=8), tmp_path / "engines.svg")
    assert (tmp_path / "engines.svg").read_text().rstrip().endswith("</svg>")
    assert [path.name for path in tmp_path.iterdir()] == ["engines.svg"]


def test_records_without_a_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the folders is a study folder"):
        read([tmp_path])
    result = CliRunner().invoke(app, ["simulate", "--records", str(tmp_path)])
    assert isinstance(result.exception, UserError)
