from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume

from search.front import PICKS, contributions, hypervolume, non_dominated, non_domination_rank, pick

Floats = NDArray[np.float64]


def dominates(a: Floats, b: Floats) -> bool:
    return bool((a <= b).all() and (a < b).any())


def brute_front(losses: Floats) -> list[bool]:
    return [not any(dominates(other, point) for other in losses) for point in losses]


def brute_rank(losses: Floats) -> list[int]:
    ranks = [-1] * len(losses)
    rank = 0
    while -1 in ranks:
        rest = [index for index, known in enumerate(ranks) if known == -1]
        for index in (i for i, kept in zip(rest, brute_front(losses[rest]), strict=True) if kept):
            ranks[index] = rank
        rank += 1
    return ranks


def brute_hypervolume(losses: Floats, reference: Floats) -> float:
    """Inclusion-exclusion over every subset of boxes: exact, and shares nothing with a sweep."""
    boxes = [point for point in losses if (point < reference).all()]
    total = 0.0
    for count in range(1, len(boxes) + 1):
        for subset in combinations(boxes, count):
            total -= (-1) ** count * float(np.prod(reference - np.max(subset, axis=0)))
    return total


@st.composite
def loss_arrays(draw: Callable[[Any], Any], sizes: tuple[int, int] = (0, 24), objectives: int = 4) -> Floats:
    """Few distinct values, so that ties, duplicates and points on and beyond the reference (4) are common."""
    m = draw(st.integers(1, objectives))
    value = st.one_of(st.integers(0, 5).map(float), st.floats(-1, 6, allow_nan=False, width=16))
    rows: Sequence[Any] = draw(st.lists(st.lists(value, min_size=m, max_size=m), min_size=sizes[0], max_size=sizes[1]))
    return np.array(rows, dtype=np.float64).reshape(-1, m)


@given(loss_arrays())
def test_front_matches_brute_force(losses: Floats) -> None:
    assert non_dominated(losses).tolist() == brute_front(losses)


@given(loss_arrays(sizes=(1, 24)))
def test_no_dominated_point_is_on_the_front_and_every_other_point_is_dominated_by_it(losses: Floats) -> None:
    mask = non_dominated(losses)
    assert mask.any()
    for point, kept in zip(losses, mask, strict=True):
        assert any(dominates(member, point) for member in losses[mask]) is not bool(kept)


@given(loss_arrays())
def test_rank_matches_brute_force_peeling(losses: Floats) -> None:
    assert non_domination_rank(losses).tolist() == brute_rank(losses)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_front_of_many_points_matches_brute_force(m: int) -> None:
    """More points than one vectorised block, on a coarse grid and on a sphere (all on the front)."""
    rng = np.random.default_rng(m)
    grid = rng.integers(0, 12, size=(700, m)).astype(np.float64)
    assert non_dominated(grid).tolist() == brute_front(grid)
    sphere = np.abs(rng.normal(size=(700, m)))
    sphere /= -np.linalg.norm(sphere, axis=1, keepdims=True)
    assert non_dominated(sphere).all()


def test_every_copy_of_a_front_point_is_kept() -> None:
    losses = np.array([[1.0, 2.0], [2.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    assert non_dominated(losses).tolist() == [True, False, True, True]
    assert non_domination_rank(losses).tolist() == [0, 1, 0, 0]


def test_infinite_losses_are_the_worst_and_the_best() -> None:
    losses = np.array([[np.inf, np.inf], [np.inf, 0.0], [-np.inf, np.inf], [np.inf, np.inf]])
    assert non_dominated(losses).tolist() == [False, True, True, False]


@settings(deadline=None)
@given(loss_arrays(sizes=(0, 8), objectives=3))
def test_hypervolume_matches_inclusion_exclusion(losses: Floats) -> None:
    reference = np.full(losses.shape[1], 4.0)
    assert hypervolume(losses, reference) == pytest.approx(brute_hypervolume(losses, reference), abs=1e-9)


@given(loss_arrays(objectives=3))
def test_hypervolume_matches_optuna(losses: Floats) -> None:
    reference = np.full(losses.shape[1], 4.0)
    inside = losses[(losses < reference).all(axis=1)]
    expected = compute_hypervolume(inside, reference) if len(inside) else 0.0
    assert hypervolume(losses, reference) == pytest.approx(expected, abs=1e-9)


@given(loss_arrays(sizes=(1, 12), objectives=3))
def test_hypervolume_counts_only_the_front_and_grows_with_every_point(losses: Floats) -> None:
    reference = np.full(losses.shape[1], 4.0)
    whole = hypervolume(losses, reference)
    assert hypervolume(losses[non_dominated(losses)], reference) == pytest.approx(whole, abs=1e-9)
    assert hypervolume(losses[:-1], reference) <= whole + 1e-9


@given(loss_arrays(sizes=(1, 10), objectives=3))
def test_contributions_are_what_is_missing_without_each_point(losses: Floats) -> None:
    corner = np.full(losses.shape[1], 4.0)
    whole = hypervolume(losses, corner)
    missing = [whole - hypervolume(np.delete(losses, index, axis=0), corner) for index in range(len(losses))]
    assert contributions(losses, corner) == pytest.approx(missing, abs=1e-9)


def test_contributions_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="minus infinity"):
        contributions([[-np.inf, 0.0]], [1.0, 1.0])
    assert contributions([[2.0, 0.0], [0.5, 0.5]], [1.0, 1.0]).tolist() == [0.0, 0.25]


def test_hypervolume_by_hand() -> None:
    assert hypervolume([[1.0], [3.0]], [4.0]) == 3.0
    assert hypervolume([[1.0, 2.0], [2.0, 1.0], [5.0, 0.0]], [3.0, 3.0]) == 3.0
    assert hypervolume([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]], [2.0, 2.0, 2.0]) == 5.0
    assert hypervolume([[3.0, 0.0]], [3.0, 3.0]) == 0.0
    assert hypervolume(np.zeros((0, 2)), [1.0, 1.0]) == 0.0


@pytest.mark.parametrize(
    ("losses", "reference", "message"),
    [
        ([[1.0, float("nan")]], [2.0, 2.0], "NaN"),
        ([1.0, 2.0], [2.0], "shape"),
        ([[1.0, 2.0]], [2.0], "2 finite values"),
        ([[1.0]], [float("inf")], "1 finite values"),
        ([[-float("inf")]], [1.0], "minus infinity"),
        ([[1.0] * 4], [2.0] * 4, "1, 2 or 3"),
    ],
)
def test_hypervolume_says_what_is_wrong(losses: Any, reference: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hypervolume(losses, reference)


# A front by hand: index 1 bends it, 2 is within a point of the baseline (0.60), 3 is the smallest.
FRONT: dict[str, Any] = {
    "accuracy": [0.61, 0.58, 0.595, 0.40],
    "latency": [10.0, 3.0, 7.0, 2.0],
    "size": [12.0, 3.0, 4.0, 1.0],
}


@pytest.mark.parametrize(
    ("name", "index"),
    [("most-accurate", 0), ("fastest", 3), ("smallest", 3), ("recommended", 2), ("knee", 1)],
)
def test_picks_of_a_front_by_hand(name: str, index: int) -> None:
    assert pick(name, **FRONT, baseline_accuracy=0.60) == index


def test_recommended_accepts_a_drop_of_exactly_the_tolerance() -> None:
    assert (
        pick(
            "recommended",
            accuracy=[0.585, 0.575],
            latency=[9.0, 3.0],
            size=[1.0, 1.0],
            baseline_accuracy=0.585,
        )
        == 1
    )
    assert pick("recommended", **FRONT, baseline_accuracy=0.60, tolerance=0.02) == 1


def test_recommended_falls_back_to_the_smallest_drop() -> None:
    assert pick("recommended", **FRONT, baseline_accuracy=0.90) == 0


def test_the_knee_of_a_front_without_a_bend_is_its_most_accurate_member() -> None:
    straight: dict[str, Any] = {
        "accuracy": [0.4, 0.5, 0.6],
        "latency": [1.0, 2.0, 3.0],
        "size": [1.0, 1.0, 1.0],
    }
    bulging: dict[str, Any] = {
        "accuracy": [0.4, 0.41, 0.6],
        "latency": [1.0, 2.9, 3.0],
        "size": [1.0, 1.0, 1.0],
    }
    assert pick("knee", **straight, baseline_accuracy=0.6) == 2
    assert pick("knee", **bulging, baseline_accuracy=0.6) == 2


def test_the_knee_does_not_depend_on_units() -> None:
    scaled: dict[str, Any] = FRONT | {"latency": [1e-3 * value for value in FRONT["latency"]]}
    assert pick("knee", **scaled, baseline_accuracy=0.60) == 1


def test_ties_go_to_accuracy_then_latency_then_size_then_index() -> None:
    twins: dict[str, Any] = {
        "accuracy": [0.5, 0.6, 0.6, 0.6],
        "latency": [1.0, 1.0, 1.0, 1.0],
        "size": [2.0, 3.0, 2.0, 2.0],
    }
    assert {name: pick(name, **twins, baseline_accuracy=0.6) for name in PICKS} == dict.fromkeys(PICKS, 2)


@pytest.mark.parametrize("name", PICKS)
def test_a_front_of_one_is_every_pick(name: str) -> None:
    assert pick(name, accuracy=[0.1], latency=[5.0], size=[9.0], baseline_accuracy=0.9) == 0


@pytest.mark.parametrize("name", PICKS)
def test_an_empty_front_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="front is empty"):
        pick(name, accuracy=[], latency=[], size=[], baseline_accuracy=0.5)


def test_pick_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="no pick called 'best'; choose one of recommended, knee"):
        pick("best", **FRONT, baseline_accuracy=0.5)
    with pytest.raises(ValueError, match="one length"):
        pick("knee", accuracy=[0.1], latency=[1.0, 2.0], size=[1.0], baseline_accuracy=0.5)
    with pytest.raises(ValueError, match="NaN"):
        pick("knee", accuracy=[float("nan")], latency=[1.0], size=[1.0], baseline_accuracy=0.5)


@settings(max_examples=50)
@given(loss_arrays(sizes=(1, 12), objectives=3).filter(lambda losses: losses.shape[1] == 3), st.randoms())
def test_picks_are_front_members_and_do_not_depend_on_the_order(losses: Floats, random: Any) -> None:
    front = np.unique(losses[non_dominated(losses)], axis=0)
    shuffled = front[random.sample(range(len(front)), len(front))]
    for name in PICKS:
        chosen = [
            rows[pick(name, accuracy=-rows[:, 0], latency=rows[:, 1], size=rows[:, 2], baseline_accuracy=-1.0)]
            for rows in (front, shuffled)
        ]
        assert chosen[0].tolist() == chosen[1].tolist()
