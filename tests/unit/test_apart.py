"""Measuring in a child process: the same answers, and what a model does to the child stays there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from search.errors import MeasurementError
from search.measure.apart import Apart
from search.runtimes.table import RUNTIMES
from search.target import Target
from tests.loops import save_loop

ROOT = Path(__file__).resolve().parents[2]
QUICK = Target(runs=30)


@pytest.fixture
def apart() -> Iterator[Apart]:
    with Apart(QUICK) as own:
        yield own


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    return save_loop(tmp_path / "quick.onnx", 200)


def test_the_child_measures_and_is_used_again(apart: Apart, quick: Path, tmp_path: Path) -> None:
    longer = save_loop(tmp_path / "longer.onnx", 2000)
    latency = apart.measure(longer, baseline=quick)
    child = apart.pid
    assert latency.ratio > 3
    assert latency.runs == 30
    assert apart.measure(quick, baseline=longer).ratio < 1 / 3
    assert apart.pid == child != os.getpid()


def test_what_cannot_be_measured_is_said_as_here(apart: Apart, quick: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"no ONNX file at .*absent\.onnx; export the model first"):
        apart.measure(tmp_path / "absent.onnx", baseline=quick)
    assert apart.measure(quick, baseline=quick).ratio == pytest.approx(1, abs=0.3)


def test_the_machine_stays_the_same_when_its_driver_is_slow(
    apart: Apart, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nvidia-smi` may not answer in time; without its cards the machine would be another one."""
    answers = iter([(("a card",), ""), ((), "nvidia-smi failed: it timed out")])
    monkeypatch.setattr("search.measure.host.list_gpus", lambda: next(answers))
    assert apart.measure(quick, baseline=quick).host == apart.measure(quick, baseline=quick).host == apart.host.id


def test_a_model_that_hangs_is_left_after_its_time(apart: Apart, quick: Path, tmp_path: Path) -> None:
    endless = save_loop(tmp_path / "endless.onnx", 10**15)
    start = time.monotonic()
    with pytest.raises(MeasurementError, match=r"endless\.onnx gave no answer in 3 s: it hangs its runtime"):
        apart.measure(endless, baseline=quick, timeout=3)
    assert time.monotonic() - start < 10
    assert apart.pid is None
    assert apart.measure(quick, baseline=quick).runs == 30


def test_a_runtime_that_builds_engines_has_time_for_both_files(
    quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = RUNTIMES["onnxruntime"].providers
    monkeypatch.setitem(providers, "cpu", replace(providers["cpu"], building=0.5))
    monkeypatch.setattr("search.measure.apart.GRACE", 0.25)
    endless = save_loop(tmp_path / "endless.onnx", 10**15)
    with (
        Apart(Target(runs=30, seconds=0.125)) as apart,
        pytest.raises(MeasurementError, match=r"endless\.onnx gave no answer in 1\.5 s"),
    ):
        apart.measure(endless, baseline=quick)


def test_a_child_that_dies_fails_its_request_and_no_other(apart: Apart, quick: Path, tmp_path: Path) -> None:
    apart.measure(quick, baseline=quick)
    endless = save_loop(tmp_path / "endless.onnx", 10**15)
    assert apart.pid is not None
    killer = threading.Timer(1.0, os.kill, (apart.pid, signal.SIGSEGV))
    killer.start()
    with pytest.raises(MeasurementError, match=r"endless\.onnx crashed its runtime \(SIGSEGV\)"):
        apart.measure(endless, baseline=quick, timeout=30)
    killer.join()
    assert apart.measure(quick, baseline=quick).runs == 30


def test_the_child_does_not_outlive_its_parent(quick: Path, tmp_path: Path) -> None:
    endless = save_loop(tmp_path / "endless.onnx", 10**15)
    code = f"""
from pathlib import Path
from search.measure.apart import Apart
from search.target import Target
apart = Apart(Target())
apart.measure(Path({str(quick)!r}), baseline=Path({str(quick)!r}))
print(apart.pid, flush=True)
apart.measure(Path({str(endless)!r}), baseline=Path({str(quick)!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(50):
        if not Path(f"/proc/{child}").exists():
            return
        time.sleep(0.2)
    pytest.fail(f"process {child} is still there")


def test_a_child_that_died_between_two_requests_is_replaced(apart: Apart, quick: Path) -> None:
    apart.measure(quick, baseline=quick)
    child = apart.pid
    assert child is not None
    os.kill(child, signal.SIGKILL)
    time.sleep(0.5)
    assert apart.measure(quick, baseline=quick).runs == 30
    assert apart.pid != child
