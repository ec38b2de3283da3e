"""Rung decisions against hand-worked tables and brute force; the state comes back from records."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume  # an implementation of others

from search.engine.length import total_epochs, trained_epochs
from search.engine.rungs import Losses, Rungs, RungSettings, known_losses, place_of, point
from search.front import contributions
from search.record import Objective, Record
from spaces.recipe import ChannelPrune, Finetune, GradualPrune, Recipe
from tests.fakes import make_record

BOTH: tuple[Objective, ...] = ("accuracy", "latency")
HALF = RungSettings(base=3, eta=3, keep=0.5, grace=2)
CORNER = (0.0, 1.0)


def test_rungs_are_a_geometric_row_before_the_end() -> None:
    assert RungSettings(base=3, eta=3).epochs(36) == (3, 9, 27)
    assert RungSettings(base=3, eta=3).epochs(30) == (3, 9)  # at 27 a tenth would be left
    assert RungSettings(base=3, eta=3, saves=0.1).epochs(30) == (3, 9, 27)
    assert RungSettings(base=3, eta=3, saves=0.01).epochs(27) == (3, 9)  # the end is no rung
    assert RungSettings(base=2, eta=1.5).epochs(8) == (2, 3, 4)
    assert RungSettings(base=9).epochs(10) == ()


def test_a_table_worked_by_hand() -> None:
    """Half of those seen go on. Each line: accuracy and latency, what is decided, and why."""
    rungs = Rungs(HALF, BOTH)
    table = [
        ("a", 0.30, 0.50, "go on"),  # alone: nothing to compare with
        ("b", 0.20, 0.60, "stop"),  # a dominates it; 1 of 2 goes on
        ("c", 0.40, 0.40, "go on"),  # dominates a and b; 2 of 3 go on
        ("d", 0.35, 0.45, "go on"),  # c dominates it, it dominates a and b: second of 4
        ("e", 0.10, 0.10, "go on"),  # fastest, so on the front with c: 3 of 5 go on
        ("f", 0.09, 0.11, "stop"),  # e dominates it; before it are c, e and d: fourth of 6
    ]
    for name, accuracy, latency, decision in table:
        assert rungs.decide(name, 3, 30, (-accuracy, latency)) == decision, name
    assert list(rungs.seen(3, 30)) == ["a", "b", "c", "d", "e", "f"]


def test_ties_on_a_front_go_to_the_larger_contribution() -> None:
    """Three points on one front, one may go on: it is the one that alone dominates most."""
    third = RungSettings(base=3, keep=1 / 3, grace=3)
    # Areas that only they dominate, up to accuracy 0 and latency 1: b 0.4 * (0.7 - 0.3) = 0.16, less what a takes.
    front = [(-0.1, 0.2), (-0.5, 0.3), (-0.55, 0.9)]
    assert contributions(front, CORNER) == pytest.approx([0.1 * 0.1, 0.4 * 0.6, 0.05 * 0.1])
    for last, expected in ((0, "stop"), (1, "go on"), (2, "stop")):
        rungs = Rungs(third, BOTH)
        order = [index for index in range(3) if index != last] + [last]
        decisions = [rungs.decide(str(index), 3, 30, front[index]) for index in order]
        assert decisions[-1] == expected


def test_only_the_same_epoch_of_the_same_length_is_compared() -> None:
    rungs = Rungs(HALF, BOTH)
    for name in "abc":
        rungs.decide(name, 9, 10, (-0.9, 0.1))  # nearly done, so far ahead
        rungs.decide(name, 3, 30, (-0.9, 0.1))
    assert rungs.decide("d", 9, 30, (-0.2, 0.5)) == "go on"
    assert rungs.decide("d", 3, 30, (-0.2, 0.5)) == "stop"


def test_the_latest_trials_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.engine.rungs.COMPARED", 3)
    own = Rungs(HALF, BOTH)
    for number in range(5):
        own.note(str(number), 3, 30, (-0.1 * number, 0.5))
    assert list(own.seen(3, 30)) == ["2", "3", "4"]
    assert own.decide("better than the first two", 3, 30, (-0.15, 0.5)) == "stop"


def test_an_epoch_that_is_no_rung_is_not_kept() -> None:
    rungs = Rungs(HALF, BOTH)
    assert rungs.decide("a", 4, 30, (-0.1, 0.9)) == "go on"
    assert rungs.seen(4, 30) == {}


def test_a_second_report_replaces_the_first() -> None:
    rungs = Rungs(HALF, BOTH)
    rungs.decide("a", 3, 30, (-0.1, 0.9))
    rungs.decide("a", 3, 30, (-0.2, 0.8))
    assert rungs.seen(3, 30) == {"a": (-0.2, 0.8)}


@pytest.mark.parametrize("losses", [(-0.1,), (-0.1, 0.2, 0.3), (math.nan, 0.2)])
def test_wrong_losses_are_refused(losses: Losses) -> None:
    with pytest.raises(ValueError, match="a: expected losses of accuracy, latency"):
        Rungs(HALF, BOTH).decide("a", 3, 30, losses)


Points = st.lists(
    st.tuples(*[st.integers(-9, -1).map(lambda v: v / 10), st.integers(1, 9).map(lambda v: v / 10)]),
    min_size=1,
    max_size=9,
)


def brute_places(points: list[Losses]) -> list[int]:
    """Places by peeling fronts off with pairwise comparisons, each front ordered by volumes of another library."""
    left, order = list(range(len(points))), []
    while left:
        front = [
            i
            for i in left
            if not any(
                all(a <= b for a, b in zip(points[j], points[i], strict=True)) and points[j] != points[i] for j in left
            )
        ]
        whole = volume([points[i] for i in front])
        added = {i: whole - volume([points[j] for j in front if j != i]) for i in front}
        order += sorted(front, key=lambda i: (-round(added[i], 12), i))
        left = [i for i in left if i not in front]
    return [order.index(i) for i in range(len(points))]


def volume(points: list[Losses]) -> float:
    import numpy as np

    return float(compute_hypervolume(np.array(points), np.array(CORNER))) if points else 0.0


@given(Points)
def test_places_are_those_of_brute_force(points: list[Losses]) -> None:
    expected = brute_places(points)
    assert [place_of(index, points, CORNER) for index in range(len(points))] == expected


@given(Points, st.integers(1, 9))
def test_a_place_that_is_good_enough_is_so_by_brute_force_too(points: list[Losses], enough: int) -> None:
    expected = brute_places(points)
    for index in range(len(points)):
        assert (place_of(index, points, CORNER, enough=enough) < enough) == (expected[index] < enough)


def stopped(ratio: float, *, accuracy_at: tuple[tuple[int, float], ...], state: str = "stopped") -> Record:
    recipe = Recipe(image_size=64, prune=ChannelPrune(ratio=ratio), finetune=Finetune(epochs=30))
    record = make_record(recipe, accuracy=None if state == "stopped" else 0.5, latency=ratio, state=state)  # type: ignore[arg-type]
    return record.model_copy(update={"curve": accuracy_at})


def test_the_state_comes_back_from_the_records() -> None:
    records = [
        stopped(0.3, accuracy_at=((3, 0.1), (9, 0.2))),
        stopped(0.5, accuracy_at=((3, 0.3), (9, 0.4), (27, 0.5), (30, 0.6)), state="complete"),
    ]
    live = Rungs(HALF, BOTH)
    for record in records:
        for epoch, accuracy in record.curve:
            live.decide(record.recipe.trunk_id, epoch, 30, (-accuracy, record.recipe.prune.ratio))  # type: ignore[union-attr]
    again = Rungs.from_records(HALF, BOTH, records)
    for epoch in (3, 9, 27, 30):
        assert again.seen(epoch, 30) == live.seen(epoch, 30)
    probe = (-0.15, 0.35)
    assert again.decide("new", 3, 30, probe) == live.decide("new", 3, 30, probe)


def test_a_trunk_counts_with_its_best_leaf_that_was_not_screened() -> None:
    recipe = Recipe(image_size=64)
    leaves = [
        make_record(recipe, latency=0.5, size=0.2, state="stopped"),
        make_record(recipe, latency=0.4, size=0.3, state="stopped"),
        make_record(recipe, latency=0.1, size=0.1, state="screened"),
    ]
    known = known_losses(leaves, ("accuracy", "latency", "size"))
    assert known is not None
    assert known == {"latency": 0.4, "size": 0.2}
    assert point(0.3, known, ("latency", "accuracy", "size")) == (0.4, -0.3, 0.2)
    assert known_losses(leaves[2:], BOTH) is None


def test_epochs_of_a_recipe_count_every_training() -> None:
    tune = Finetune(epochs=20)
    assert total_epochs(Recipe(image_size=64)) == 0
    assert total_epochs(Recipe(image_size=64, finetune=tune)) == 20
    gradual = GradualPrune(ratio=0.5, steps=4, step_epochs=2)
    assert total_epochs(Recipe(image_size=64, prune=gradual, finetune=tune)) == 26


def test_epochs_that_were_spent() -> None:
    assert trained_epochs([stopped(0.5, accuracy_at=((3, 0.1), (9, 0.2)))]) == 9
    assert trained_epochs([stopped(0.5, accuracy_at=(), state="complete")]) == 30
    assert trained_epochs([stopped(0.5, accuracy_at=(), state="screened")]) == 0
