"""The timing loop against invented clocks: what it knows, when it stops, and what it doubts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest

from search.measure.doubts import doubts, unsteady, waiting
from search.measure.pairs import (
    FEWEST,
    LEAST,
    LONGEST_WARMUP,
    PAIRS,
    REWARM,
    WINDOW,
    ClockName,
    Effort,
    Series,
    time_pairs,
)
from search.measure.witness import Witness


class Machine:
    """A clock that two runs move on: by so many milliseconds each, at every call anew. Loading takes 100 and 300."""

    name: ClockName = "thread-cpu"

    def __init__(self, candidate: Callable[[int], float], baseline: Callable[[int], float], held: float = 0.0) -> None:
        self.now, self.computed, self.calls, self._held = 0, 0, [0, 0], held
        self.opened = [0, 0]
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

    def open(self, column: int) -> Callable[[], None]:
        self.opened[column] += 1
        self.now += round((100, 300)[column] * 1e6)
        return lambda: self.run(column)

    def time(self, effort: Effort, threads: int = 1, walk: Callable[[], float] = lambda: 1.0) -> Series:
        openers = (lambda: self.open(0), lambda: self.open(1))
        return time_pairs(openers, effort, threads=threads, witness=Witness(walk), clock=self)


def noisy(middle: float, spread: float, seed: int) -> Callable[[int], float]:
    rng = np.random.default_rng(seed)
    return lambda call: middle * float(rng.lognormal(0, spread))


def test_steady_times_are_known_after_the_least_of_sessions() -> None:
    machine = Machine(lambda call: 2.0, lambda call: 8.0)
    series = machine.time(Effort(runs=500))
    assert len(series.wall) == LEAST * PAIRS
    assert series.warmup == 2 * WINDOW
    assert series.ratio() == pytest.approx((0.25, 0.25, 0.25))
    assert machine.calls == [LEAST * PAIRS + 2 * WINDOW + (LEAST - 1) * REWARM] * 2
    assert machine.opened == [LEAST] * 2
    assert doubts(series, Effort()) == ()


def test_every_session_loads_both_anew_and_says_how_long_it_took() -> None:
    series = Machine(lambda call: 2.0, lambda call: 8.0).time(Effort(runs=500))
    assert series.session.tolist() == [session for session in range(LEAST) for _ in range(PAIRS)]
    np.testing.assert_allclose(series.loading, [[100.0, 300.0]] * LEAST)


def test_a_session_that_is_slower_than_others_widens_the_interval() -> None:
    """As a model does that happens to be loaded badly: its own runs do not show it."""

    class Uneven(Machine):
        def run(self, column: int) -> None:
            factor = 1.05 if column == 0 and self.opened[0] % 2 else 1.0
            self.now += round((2.0, 8.0)[column] * factor * 1e6)
            self.computed = self.now

    series = Uneven(lambda call: 2.0, lambda call: 8.0).time(Effort(runs=100))
    ratio, low, high = series.ratio()
    assert len(series.wall) == 100
    assert ratio == 0.25  # of the sessions that are as fast as can be
    assert high > low * 1.001


def test_noise_is_timed_until_the_interval_is_narrow_enough() -> None:
    runs = []
    for precision in (0.02, 0.01, 0.005):
        series = Machine(noisy(2, 0.1, 0), noisy(8, 0.1, 1)).time(Effort(runs=50_000, precision=precision, seconds=1e9))
        runs.append(len(series.wall))
        assert series.half_width() <= precision
        assert series.ratio()[0] == pytest.approx(0.25, rel=3 * precision)
    assert LEAST * PAIRS <= runs[0] < runs[1] < runs[2] < 50_000
    assert runs[2] > 2 * runs[1]  # half the width takes four times the runs


def test_runs_and_seconds_bound_what_cannot_be_known() -> None:
    wild = noisy(2, 0.5, 0), noisy(8, 0.5, 1)
    assert len(Machine(*wild).time(Effort(runs=47, precision=1e-6)).wall) == 47
    machine = Machine(*wild)
    series = machine.time(Effort(runs=10**6, precision=1e-6, seconds=3.0))
    assert 3.0 <= machine.now / 1e9 < 3.5
    assert len(series.wall) < 250


@pytest.mark.parametrize(("runs", "pairs"), [(10, 2), (20, 2), (50, 5), (1000, 10)])
def test_few_runs_are_spread_over_sessions_too(runs: int, pairs: int) -> None:
    machine = Machine(noisy(2, 0.5, 0), noisy(8, 0.5, 1))
    series = machine.time(Effort(runs=runs, precision=1e-6, seconds=1e9))
    assert len(series.wall) == runs
    assert machine.opened == [runs // pairs] * 2


def test_a_slow_model_takes_little_more_than_its_time() -> None:
    """Else it would be taken for one that hangs."""
    for seconds, sessions in ((5.0, 1), (30.0, 1), (31.0, 2), (85.0, 3)):
        machine = Machine(lambda call: 4000.0, lambda call: 6000.0)
        series = machine.time(Effort(seconds=seconds))
        assert (series.warmup, series.session.tolist()) == (1, sorted([*range(sessions)] * 2))
        assert seconds <= machine.now / 1e9 <= seconds + 3 * 10.4


@pytest.mark.parametrize("pair", [0.05, 0.6, 2.0, 8.0])
def test_the_interval_of_a_slow_model_covers_the_true_ratio(pair: float) -> None:
    """Each session is a percent off; the default effort has time for several, which show it."""

    class Uneven(Machine):
        def open(self, column: int) -> Callable[[], None]:
            self.factors[column] = rng.lognormal(0, 0.01)
            return super().open(column)

        def run(self, column: int) -> None:
            spent = (0.2, 0.8)[column] * pair * 1e9 * self.factors[column] * rng.lognormal(0, 0.005)
            self.now += round(spent)
            self.computed = self.now

        factors: ClassVar = [1.0, 1.0]

    rng = np.random.default_rng(0)
    found = [Uneven(float, float).time(Effort()) for _ in range(200)]
    covered = [low <= 0.25 <= high for _, low, high in (series.ratio() for series in found)]
    assert np.mean(covered) >= 0.92
    assert min(len(series.loading) for series in found) >= FEWEST


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
    runs = (lambda: (order.append(0), machine.run(0)), lambda: (order.append(1), machine.run(1)))
    series = time_pairs(
        (lambda: runs[0], lambda: runs[1]),
        Effort(runs=100, precision=-1.0),
        threads=1,
        witness=Witness(lambda: 1.0),
        clock=machine,
    )
    own = order[2 * (series.warmup - REWARM) :: 2]  # sessions of as many warming pairs each
    first = np.array(own).reshape(-1, REWARM + PAIRS)[:, REWARM:]
    assert first.mean(axis=1) == pytest.approx(0.5)
    assert len({tuple(session) for session in first}) > 1


class Shared(Machine):
    """Another guest of the host uses its memory in some sessions: the candidate takes half as long again."""

    def __init__(self, busy: Callable[[int], bool]) -> None:
        super().__init__(lambda call: 2.0 * (1.5 if self.busy() else 1.0), lambda call: 8.0)
        self._busy = busy

    def busy(self) -> bool:
        return self._busy(self.opened[1])

    def walk(self) -> float:
        return 1.2 if self._busy(self.opened[1] + 1) else 1.0  # before the session's models are loaded


def test_sessions_in_which_others_use_the_memory_do_not_count() -> None:
    """Three in four, for as long as it takes: the lowest tenth alone would do here, the number of runs tells."""
    machine = Shared(lambda session: session % 4 != 1)
    series = machine.time(Effort(runs=100, precision=-1.0), walk=machine.walk)
    assert machine.opened[1] == 37  # the tenth calm one
    assert (len(series.wall), len(series.loading), series.disturbed) == (100, 10, False)
    assert series.session.tolist() == [session for session in range(10) for _ in range(PAIRS)]
    np.testing.assert_allclose(series.cpu, [[2.0, 8.0]] * 100)


def test_no_more_runs_count_than_were_asked_for_when_a_disturbance_comes_to_stay() -> None:
    """Until it is known that it stays, it was waited for: there are more than enough."""
    machine = Shared(lambda session: session % 3 != 1 or session > 12)
    series = machine.time(Effort(runs=100, precision=-1.0), walk=machine.walk)
    assert machine.opened[1] > 10
    assert (len(series.wall), len(series.loading), series.disturbed) == (100, 10, True)
    assert series.session.max() == 9


def test_a_disturbance_that_stays_is_said_and_not_waited_for() -> None:
    machine = Shared(lambda session: session > 2)
    series = machine.time(Effort(runs=100, precision=-1.0), walk=machine.walk)
    assert series.disturbed
    assert (machine.opened[1], len(series.wall)) == (10, 100)
    assert [sentence for sentence in doubts(series, Effort()) if "used the memory" in sentence]
    assert not unsteady(series)  # a second attempt would take as long, and end so too


def test_one_calm_session_among_disturbed_ones_is_not_all_that_counts() -> None:
    """When time is up after four: that one would know nothing of how sessions differ."""
    effort = Effort(runs=20, precision=-1.0, seconds=1.5)
    for calm, counting, disturbed in (({1}, 4, True), ({1, 3}, 4, True), ({1, 3, 4}, 3, False)):
        machine = Shared(lambda session, calm=calm: session not in calm)
        series = machine.time(effort, walk=machine.walk)
        assert machine.opened[1] == 4
        assert (len(series.loading), series.disturbed) == (counting, disturbed)


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
        (lambda call: 8.0 if call < 75 else 9.0, "12% slower: the processor throttles"),
        (lambda call: 9.0 if call < 75 else 8.0, "11% faster: a neighbour went"),
        (noisy(8, 0.3, 3), "spread by .*: a noisy neighbour"),
    ],
)
def test_what_the_baseline_shows_is_said(baseline: Callable[[int], float], sentence: str) -> None:
    series = Machine(lambda call: 2.0, baseline).time(Effort(runs=100, precision=-1.0))
    assert re.search(sentence, " ".join(unsteady(series)))
    assert set(unsteady(series)) <= set(doubts(series, Effort()))


@pytest.mark.parametrize(("spread", "said"), [(0.005, ()), (0.1, ("the ratio is known to 3",))])
def test_an_interval_that_is_much_wider_than_was_asked_for_is_said(spread: float, said: tuple[str, ...]) -> None:
    series = Machine(noisy(2, spread, 0), noisy(8, spread, 1)).time(Effort(runs=100, precision=0.01))
    found = doubts(series, Effort(precision=0.01))
    assert (series.half_width() > 0.02) == bool(said)
    assert [sentence[:23] for sentence in found] == [expected[:23] for expected in said]
    assert doubts(series, Effort(precision=series.half_width())) == unsteady(series) == ()


@pytest.mark.parametrize("runs", [2, 4, 6])
def test_sessions_that_are_too_few_are_said(runs: int) -> None:
    series = Machine(lambda call: 2.0, lambda call: 8.0).time(Effort(runs=runs))
    said = [f"its interval rests on {runs // 2} of the {FEWEST} sessions"] if runs // 2 < FEWEST else []
    assert [sentence[: len(said[0])] for sentence in doubts(series, Effort())] == said
