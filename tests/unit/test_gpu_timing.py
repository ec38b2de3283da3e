"""Timing on a device: while it computes the thread that calls waits, so no CPU clock knows how long a run takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search.measure.end_to_end import measure_end_to_end
from search.measure.latency import clock_of, measure_latency
from search.measure.pairs import Effort
from search.measure.throughput import measure_throughput
from search.runtimes.session import Arrays, Input, Runtime, Session
from search.runtimes.table import RUNTIMES, Entry, Provider
from search.target import load_target, target_names

SLEEPY = Runtime(name="sleepy", provider="device")


class SleepySession(Session):
    """Stands for a device: a run sleeps for as many milliseconds as the file says, and computes nothing."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._seconds = float(path.read_text(encoding="utf-8")) / 1000
        self.inputs = (Input(name="images", shape=(1, 3, 8, 8), dtype=np.dtype(np.float32)),)

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        return lambda: time.sleep(self._seconds)

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        time.sleep(self._seconds)
        return [np.full((1, 5), 0.2, dtype=np.float32)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The candidate sleeps for 3 ms, the baseline for 12; the runtime is known while the test runs."""
    provider = Provider((), "", device="gpu")
    entry = Entry(module=__name__, session="SleepySession", format="onnx", providers={"device": provider})
    monkeypatch.setitem(RUNTIMES, "sleepy", entry)
    paths = tmp_path / "candidate", tmp_path / "baseline"
    for path, milliseconds in zip(paths, (3, 12), strict=True):
        path.write_text(str(milliseconds), encoding="utf-8")
    return paths


def test_the_ratio_is_that_of_wall_times(files: tuple[Path, Path]) -> None:
    latency = measure_latency(*files, runtime=SLEEPY, effort=Effort(runs=20))
    assert (latency.clock, latency.threads) == ("wall", 1)
    assert latency.ratio == pytest.approx(0.25, rel=0.1)
    assert latency.waiting == 0  # nobody else's work: the device's


def test_from_picture_to_answer_too(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.measure.end_to_end.SESSIONS", 2)
    whole = measure_end_to_end(*files, [np.zeros((16, 16, 3), dtype=np.uint8)], runtime=SLEEPY)
    assert whole.clock == "wall"
    assert whole.ratio[0] < 0.6


def test_a_device_at_work_is_no_core_that_was_taken_away(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.measure.throughput.SECONDS", 0.05)
    found = measure_throughput(*files, runtime=SLEEPY)
    assert found.ratio[0] == pytest.approx(4, rel=0.2)
    assert found.waiting is None


@pytest.mark.parametrize("name", target_names())
def test_the_targets_here_are_timed_by_what_they_compute_on(name: str) -> None:
    target = load_target(name)
    on_gpu = name in {"onnxruntime-cuda", "tensorrt"}
    assert target.device == ("gpu" if on_gpu else "cpu")
    assert clock_of(target.as_runtime).name == ("wall" if on_gpu else "thread-cpu")
    assert target.by_wall_clock is target.pauses_training is on_gpu


def test_one_on_a_device_is_enough_for_the_wall_clock() -> None:
    assert clock_of(Runtime(), Runtime(provider="cuda")).name == "wall"
