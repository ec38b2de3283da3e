"""The ratio of paired times and its interval, against numpy, SciPy and simulated sessions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from search.measure.ratio import SESSION, paired_ratio, t975

times = st.floats(0.1, 100)


@given(st.lists(st.tuples(times, times, st.integers(0, 4)), min_size=1, max_size=30))
def test_the_ratio_is_that_of_the_lower_quartiles_and_lies_in_its_interval(
    pairs: list[tuple[float, float, int]],
) -> None:
    ours, theirs, sessions = (np.array(column) for column in zip(*pairs, strict=True))
    ratio, low, high = paired_ratio(ours, theirs, sessions)
    quartiles = [np.quantile(column, 0.25, method="inverted_cdf") for column in (ours, theirs)]
    assert ratio == pytest.approx(quartiles[0] / quartiles[1])
    assert low * (1 - 1e-9) <= ratio <= high * (1 + 1e-9)


def test_the_interval_is_students_with_the_deviation_of_resampled_sessions() -> None:
    """Against SciPy's bootstrap of whole sessions."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.lognormal(0.0, 0.1, (12, 10)), rng.lognormal(0.5, 0.1, (12, 10))
    ratio, low, high = paired_ratio(ours.ravel(), theirs.ravel(), np.repeat(np.arange(12), 10))

    def log_ratio(chosen: NDArray[np.int64]) -> float:
        one, other = (np.quantile(own[chosen], 0.25, method="inverted_cdf") for own in (ours, theirs))
        return float(np.log(one / other))

    found = stats.bootstrap((np.arange(12),), log_ratio, vectorized=False, n_resamples=4000, rng=rng)
    width = stats.t.ppf(0.975, 11) * found.standard_error * (12 / 11) ** 0.5
    assert [np.log(ratio / low), np.log(high / ratio)] == pytest.approx([width, width], rel=0.15)


def test_runs_that_a_neighbour_disturbs_do_not_move_the_ratio() -> None:
    """He comes for some sessions and slows the small model down by half, the large one by a tenth: as was measured."""
    rng = np.random.default_rng(0)
    numbers = np.repeat(np.arange(20), 10)
    disturbed = np.isin(numbers, rng.permutation(20)[:12])
    ours = 0.13 * rng.lognormal(0, 0.01, 200) * np.where(disturbed, rng.uniform(1, 1.5, 200), 1)
    theirs = rng.lognormal(0, 0.01, 200) * np.where(disturbed, rng.uniform(1, 1.1, 200), 1)
    ratio, _, _ = paired_ratio(ours, theirs, numbers)
    assert ratio == pytest.approx(0.13, rel=0.01)
    of_medians = np.exp(np.median(np.log(ours / theirs).reshape(20, 10), axis=1).mean())
    assert of_medians > 0.13 * 1.05


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 12, 20, 60, 1000])
def test_the_quantiles_are_students(freedom: int) -> None:
    assert t975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=5e-4)


@pytest.mark.parametrize("sessions", [5, 10, 30])
@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_the_interval_covers_the_true_ratio_about_95_times_in_100(sessions: int, drift: float) -> None:
    """A percent between sessions, noise between runs, and one run in twenty slowed down to triple its time. A drift
    that both runs of a pair share makes the interval wider than it need be."""
    rng = np.random.default_rng(0)
    covered = 0
    numbers = np.repeat(np.arange(sessions), 10)
    for _ in range(600):
        shared = 1 + drift * np.sin(np.arange(len(numbers)) / 9)
        ours = 0.5 * shared * rng.lognormal(0, 0.01, sessions)[numbers] * rng.lognormal(0, 0.02, len(numbers))
        theirs = shared * rng.lognormal(0, 0.01, sessions)[numbers] * rng.lognormal(0, 0.02, len(numbers))
        for series in (ours, theirs):
            series[rng.random(len(numbers)) < 0.05] *= 3
        _, low, high = paired_ratio(ours, theirs, numbers)
        covered += low <= 0.5 <= high
    assert 0.93 <= covered / 600 <= (0.985 if drift == 0 else 1)


@pytest.mark.parametrize("session", [0.0, 0.011, 0.019])
@pytest.mark.parametrize("pairs", [2, 10, 150])
def test_an_interval_of_one_session_covers_what_others_would_show(session: float, pairs: int) -> None:
    """Of deviations up to the largest that was measured; its own pairs say nothing of it."""
    rng = np.random.default_rng(0)
    covered, widths = 0, list[float]()
    for _ in range(400):
        ours = 0.5 * rng.lognormal(0, session) * rng.lognormal(0, 0.005, pairs)
        _, low, high = paired_ratio(ours, rng.lognormal(0, 0.005, pairs))
        covered += low <= 0.5 <= high
        widths.append(high / low - 1)
    assert covered / 400 >= 0.93
    assert pairs == 2 or np.median(widths) < 0.085  # honest, and not at a loss


def test_swapping_the_series_inverts_the_ratio() -> None:
    rng = np.random.default_rng(0)
    ours, theirs, sessions = rng.random(50) + 0.1, rng.random(50) + 0.1, np.arange(50) // 10
    ratio, low, high = paired_ratio(ours, theirs, sessions)
    assert paired_ratio(theirs, ours, sessions) == pytest.approx((1 / ratio, 1 / high, 1 / low))


def test_a_slowdown_shared_by_both_runs_of_a_pair_cancels() -> None:
    slowdown = np.where(np.arange(40) < 25, 1.0, 3.0)
    assert paired_ratio(0.4 * slowdown, slowdown) == pytest.approx(paired_ratio([0.4] * 40, [1.0] * 40))
    assert paired_ratio(0.4 * slowdown, slowdown, np.arange(40) // 8) == pytest.approx((0.4, 0.4, 0.4))


def test_one_pair_has_the_interval_of_one_session() -> None:
    ratio, low, high = paired_ratio([1.0], [2.0])
    assert ratio == 0.5
    assert np.log([low / ratio, high / ratio]) == pytest.approx([-1.96 * SESSION, 1.96 * SESSION], rel=1e-3)


@pytest.mark.parametrize(
    ("ours", "theirs"), [([1.0], [1.0, 2.0]), ([], []), ([0.0], [1.0]), ([1.0], [np.inf]), ([np.nan], [1.0])]
)
def test_times_that_are_not_times_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pair up|positive and finite"):
        paired_ratio(ours, theirs)
