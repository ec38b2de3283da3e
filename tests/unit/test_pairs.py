"""The timing loop against invented clocks: what it knows, when it stops, and what it doubts."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.measure.pairs import (
    BLOCK,
    LEAST,
    LONGEST_WARMUP,
    WINDOW,
    Effort,
    Series,
    doubts,
    half_width,
    paired_ratio,
    time_pairs,
    waiting,
)

times = st.floats(0.1, 100)


@given(st.lists(st.tuples(times, times), min_size=1, max_size=30), st.integers(0, 5))
def test_the_ratio_is_the_median_of_the_pairs_and_lies_in_its_interval(
    pairs: list[tuple[float, float]], seed: int
) -> None:
    ours, theirs = np.array(pairs).T
    ratio, low, high = paired_ratio(ours, theirs, seed=seed, resamples=200)
    middle = np.sort(ours / theirs)[[(len(pairs) - 1) // 2, len(pairs) // 2]]
    assert ratio == pytest.approx(np.sqrt(middle[0] * middle[1]))
    assert (ours / theirs).min() * (1 - 1e-9) <= low <= high <= (ours / theirs).max() * (1 + 1e-9)


def test_the_interval_is_the_percentile_bootstrap_written_as_a_loop() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.lognormal(0.0, 0.1, 40), rng.lognormal(0.5, 0.1, 40)
    _, low, high = paired_ratio(ours, theirs, seed=3, resamples=500)
    rng = np.random.default_rng(3)
    medians: list[float] = []
    for _ in range(500):
        rows = rng.integers(0, 40, size=40)
        medians.append(float(np.exp(np.median(np.log(ours[rows]) - np.log(theirs[rows])))))
    assert [low, high] == pytest.approx(np.percentile(medians, [2.5, 97.5]), rel=1e-3)


def test_the_interval_covers_the_true_ratio_about_95_times_in_100() -> None:
    """Log-normal noise, a drift both runs of a pair share, and one run in twenty slowed down to triple its time."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(400):
        drift = 1 + 0.3 * np.sin(np.arange(60) / 9)
        ours = 0.5 * drift * rng.lognormal(0, 0.05, 60)
        theirs = drift * rng.lognormal(0, 0.05, 60)
        for series in (ours, theirs):
            series[rng.random(60) < 0.05] *= 3
        _, low, high = paired_ratio(ours, theirs, seed=seed, resamples=400)
        covered += low <= 0.5 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_swapping_the_series_inverts_the_ratio() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(50) + 0.1, rng.random(50) + 0.1
    ratio, low, high = paired_ratio(ours, theirs)
    assert paired_ratio(theirs, ours) == pytest.approx((1 / ratio, 1 / high, 1 / low))


def test_a_slowdown_shared_by_both_runs_of_a_pair_cancels() -> None:
    slowdown = np.where(np.arange(40) < 25, 1.0, 3.0)
    assert paired_ratio(0.4 * slowdown, slowdown) == pytest.approx((0.4, 0.4, 0.4))


@pytest.mark.parametrize(
    ("ours", "theirs"), [([1.0], [1.0, 2.0]), ([], []), ([0.0], [1.0]), ([1.0], [np.inf]), ([np.nan], [1.0])]
)
def test_times_that_are_not_times_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pair up|positive and finite"):
        paired_ratio(ours, theirs)


class Machine:
    """A clock that two runs move on: by so many milliseconds each, at every call anew."""

    def __init__(self, candidate: Callable[[int], float], baseline: Callable[[int], float], held: float = 0.0) -> None:
        self.now, self.computed, self.calls, self._held = 0, 0, [0, 0], held
        self._cost = (candidate, baseline)

    def wall(self) -> int:
        return self.now

    def cpu(self) -> int:
        return self.computed

    def run(self, column: int) -> None:
        spent = round(self._cost[column](self.calls[column]) * 1e6)
        self.calls[column] += 1
        self.computed += spent
        self.now += round(spent / (1 - self._held))

    def time(self, effort: Effort, threads: int = 1) -> Series:
        return time_pairs((lambda: self.run(0), lambda: self.run(1)), effort, threads=threads, clock=self)


def noisy(middle: float, spread: float, seed: int) -> Callable[[int], float]:
    rng = np.random.default_rng(seed)
    return lambda call: middle * float(rng.lognormal(0, spread))


def test_steady_times_are_known_after_the_least_of_runs() -> None:
    machine = Machine(lambda call: 2.0, lambda call: 8.0)
    series = machine.time(Effort(runs=500))
    assert len(series.wall) == LEAST
    assert series.warmup == 2 * WINDOW
    assert paired_ratio(*series.chosen.T)[0] == pytest.approx(0.25)
    assert machine.calls == [LEAST + 2 * WINDOW] * 2
    assert doubts(series) == ()


def test_noise_is_timed_until_the_interval_is_narrow_enough() -> None:
    runs = []
    for precision in (0.02, 0.01, 0.005):
        series = Machine(noisy(2, 0.05, 0), noisy(8, 0.05, 1)).time(Effort(runs=5000, precision=precision, seconds=1e9))
        runs.append(len(series.wall))
        assert half_width(series, 0) <= precision
        assert paired_ratio(*series.chosen.T)[0] == pytest.approx(0.25, rel=3 * precision)
    assert LEAST <= runs[0] < runs[1] < runs[2] < 5000
    assert runs[2] > 2 * runs[1]  # half the width takes four times the runs


def test_runs_and_seconds_bound_what_cannot_be_known() -> None:
    wild = noisy(2, 0.5, 0), noisy(8, 0.5, 1)
    assert len(Machine(*wild).time(Effort(runs=47, precision=1e-6)).wall) == 47
    machine = Machine(*wild)
    series = machine.time(Effort(runs=10**6, precision=1e-6, seconds=2.0))
    assert 2.0 <= machine.now / 1e9 < 2.5
    assert len(series.wall) < 250


def test_a_slow_model_takes_little_more_than_its_time() -> None:
    """Else it would be taken for one that hangs."""
    machine = Machine(lambda call: 4000.0, lambda call: 6000.0)
    series = machine.time(Effort(seconds=30.0))
    assert series.warmup == WINDOW
    assert len(series.wall) == 2
    machine = Machine(lambda call: 4000.0, lambda call: 6000.0)
    assert len(machine.time(Effort(seconds=85.0)).wall) == 2
    assert machine.now / 1e9 <= 85 + 3 * 10


def test_warming_up_ends_when_the_times_stand_still() -> None:
    def falling(call: int) -> float:
        return 8 * (1 + 4 * 0.8**call)

    series = Machine(lambda call: 2.0, falling).time(Effort(runs=30))
    assert 2 * WINDOW < series.warmup < LONGEST_WARMUP
    assert falling(series.warmup) == pytest.approx(8, rel=0.06)
    rising = Machine(lambda call: 2.0, lambda call: 8.0 * 1.2**call).time(Effort(runs=30, seconds=1e12))
    assert rising.warmup == LONGEST_WARMUP


def test_both_come_first_equally_often() -> None:
    order: list[int] = []
    machine = Machine(lambda call: 2.0, lambda call: 8.0)
    pair = (lambda: (order.append(0), machine.run(0)), lambda: (order.append(1), machine.run(1)))
    series = time_pairs(pair, Effort(runs=60, precision=1e-12), threads=1, clock=machine)
    first = np.array(order[2 * series.warmup :: 2])
    assert first.reshape(-1, BLOCK).mean(axis=1) == pytest.approx(0.5)
    assert len({tuple(block) for block in first.reshape(-1, BLOCK)}) > 1


def test_the_threads_own_time_counts_where_there_is_one_thread() -> None:
    held = Machine(lambda call: 2.0, lambda call: 8.0, held=0.4)
    series = held.time(Effort(runs=40))
    assert series.clock == "thread-cpu"
    np.testing.assert_allclose(series.chosen, [[2.0, 8.0]] * len(series.wall), rtol=1e-5)
    np.testing.assert_allclose(series.wall, series.cpu / 0.6, rtol=1e-5)
    assert waiting(series) == pytest.approx(0.4, rel=1e-4)
    wide = Machine(lambda call: 2.0, lambda call: 8.0, held=0.4).time(Effort(runs=40), threads=2)
    assert (wide.clock, waiting(wide)) == ("wall", 0.0)


@pytest.mark.parametrize(
    ("baseline", "sentence"),
    [
        (lambda call: 8.0 if call < 25 else 9.0, "12% slower: the processor throttles"),
        (lambda call: 9.0 if call < 25 else 8.0, "11% faster: a neighbour went"),
        (noisy(8, 0.3, 3), "spread by .*: a noisy neighbour"),
    ],
)
def test_what_the_baseline_shows_is_said(baseline: Callable[[int], float], sentence: str) -> None:
    series = Machine(lambda call: 2.0, baseline).time(Effort(runs=60, precision=1e-12))
    assert re.search(sentence, " ".join(doubts(series)))
