"""Pictures a second: the accounting, by clocks that are told what time it is."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from search.errors import MeasurementError
from search.measure.pairs import ClockName, Run
from search.measure.throughput import TURNS, measure_throughput, take_turn, take_turns
from search.runtimes.session import Runtime
from tests.loops import save_loop


class StreamClock:
    """A wall clock for each thread, which a run moves, and one CPU clock for all."""

    name: ClockName = "process-cpu"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._walls: dict[int, int] = defaultdict(int)
        self._cpu = 0

    def wall(self) -> int:
        return self._walls[threading.get_ident()]

    def cpu(self) -> int:
        return self._cpu

    def run(self, *, wall: float, cpu: float) -> Run:
        """Something that takes so many seconds."""

        def one() -> None:
            with self._lock:
                self._walls[threading.get_ident()] += round(wall * 1e9)
                self._cpu += round(cpu * 1e9)

        return one


def test_the_rates_of_streams_add_up_each_over_its_own_time() -> None:
    clock = StreamClock()
    runs = [clock.run(wall=0.05, cpu=0.025), clock.run(wall=0.1, cpu=0.05)]
    turn = take_turn(runs, batch=1, seconds=0.22, clock=clock)  # five runs in .25 s, and three in .3 s
    assert turn.rate == pytest.approx(1 / 0.05 + 1 / 0.1)
    assert turn.waiting == pytest.approx(0.5)


def test_a_run_of_several_pictures_counts_as_many_and_a_long_one_counts_once() -> None:
    clock = StreamClock()
    turn = take_turn([clock.run(wall=4.0, cpu=4.0)], batch=8, seconds=0.25, clock=clock)
    assert turn.rate == pytest.approx(2)
    assert turn.waiting == 0


def test_the_two_alternate_are_loaded_for_each_turn_and_the_ratio_is_of_rates() -> None:
    clock, order = StreamClock(), []

    def opener(name: str, seconds: float) -> Callable[[], list[Run]]:
        def opened() -> list[Run]:
            order.append(name)
            return [clock.run(wall=seconds, cpu=0.75 * seconds)]

        return opened

    openers = opener("ours", 0.01), opener("theirs", 0.02)
    found = take_turns(openers, batch=1, waiting=True, clock=clock)
    assert order == ["ours", "theirs", "theirs", "ours"] * (TURNS // 2)
    assert (found.rate, found.against_rate) == (pytest.approx(100), pytest.approx(50))
    assert found.ratio == pytest.approx((2, 2, 2))
    assert found.waiting == pytest.approx(0.25)
    assert take_turns(openers, batch=1, waiting=False, clock=clock).waiting is None


def test_a_stream_that_fails_fails_the_turn() -> None:
    clock = StreamClock()

    def broken() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise MeasurementError("loads but does not run")

    with pytest.raises(MeasurementError, match="loads but does not run"):
        take_turn([clock.run(wall=1, cpu=1), broken], batch=1, seconds=0.1, clock=clock)


def test_streams_run_in_a_runtime(tmp_path: Path) -> None:
    quick, slow = save_loop(tmp_path / "quick.onnx", 2_000), save_loop(tmp_path / "slow.onnx", 20_000)
    found = measure_throughput(quick, slow, runtime=Runtime(), streams=2)
    assert found.ratio[0] > 3
    assert found.rate > 3 * found.against_rate > 0
    assert found.waiting is not None and 0 <= found.waiting < 1
