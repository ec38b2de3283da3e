"""Expected gain against brute force: sampled accuracies, and hypervolumes by another library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume

from search.engine.gain import expected_gain
from search.engine.predict import normal_quantiles

FRONT_ACCURACY = [0.3, 0.5, 0.6]
FRONT_KNOWN = [[0.1], [0.3], [0.7]]


def volume(accuracy: np.ndarray, known: np.ndarray) -> float:
    losses = np.column_stack([-accuracy, known])
    corner = np.array([0.0] + [1.0] * known.shape[1])
    inside = losses[(losses < corner).all(axis=1)]
    return float(compute_hypervolume(inside, corner)) if len(inside) else 0.0


def outcomes(mean: list, spread: list) -> np.ndarray:
    return np.array(mean)[:, None] + np.array(spread)[:, None] * normal_quantiles(32)


def sampled_gain(front: tuple[list, list], mean: list, spread: list, known: list, *, floor: float, draws: int) -> float:
    """The mean growth over draws of one normal number that moves all leaves together."""
    accuracy, costs = np.array(front[0]), np.array(front[1]).reshape(len(front[0]), -1)
    before, gains = volume(accuracy, costs), []
    for number in np.random.default_rng(0).normal(size=draws):
        own = np.array(mean) + number * np.array(spread)
        kept = own >= floor
        after = volume(np.append(accuracy, own[kept]), np.concatenate([costs, np.array(known)[kept]]))
        gains.append(after - before)
    return float(np.mean(gains))


@pytest.mark.parametrize(
    ("mean", "spread", "known", "floor"),
    [
        ([0.55], [0.05], [[0.2]], 0.0),
        ([0.20], [0.10], [[0.5]], 0.0),  # probably dominated
        ([0.50, 0.48], [0.03, 0.05], [[0.25], [0.05]], 0.0),  # two leaves of one trunk
        ([0.50, 0.48], [0.03, 0.05], [[0.25], [0.05]], 0.5),  # half of the time below the limit
        ([0.90], [0.01], [[1.5]], 0.0),  # beyond the corner
    ],
)
def test_the_gain_is_that_of_sampling(mean: list, spread: list, known: list, floor: float) -> None:
    front = (FRONT_ACCURACY, FRONT_KNOWN)
    expected = sampled_gain(front, mean, spread, known, floor=floor, draws=4000)
    found = expected_gain(*front, accuracy=outcomes(mean, spread), known=known, corner=[1.0], floor=floor)
    assert found == pytest.approx(expected, abs=0.002)


Accuracy = st.integers(1, 9).map(lambda value: value / 10)
Members = st.lists(st.tuples(Accuracy, Accuracy, Accuracy), max_size=4)


@given(Members, st.lists(st.tuples(Accuracy, Accuracy, Accuracy), min_size=1, max_size=3))
def test_a_gain_without_doubt_is_the_growth_of_the_hypervolume(front: list, leaves: list) -> None:
    """Two known objectives, latency and size."""
    accuracy, known = np.array([f[0] for f in front]), np.array([f[1:] for f in front]).reshape(-1, 2)
    own, costs = np.array([leaf[0] for leaf in leaves]), np.array([leaf[1:] for leaf in leaves])
    grown = volume(np.append(accuracy, own), np.concatenate([known, costs])) - volume(accuracy, known)
    found = expected_gain(accuracy, known, accuracy=own[:, None], known=costs, corner=[1.0, 1.0])
    assert found == pytest.approx(grown, abs=1e-9)


def test_doubt_is_worth_something_where_the_mean_is_dominated() -> None:
    def gain(spread: float) -> float:
        likely = outcomes([0.45], [spread])
        return expected_gain(FRONT_ACCURACY, FRONT_KNOWN, accuracy=likely, known=[[0.4]], corner=[1.0])

    assert gain(0.0) == 0.0
    assert 0.0 < gain(0.03) < gain(0.1)
