"""The bench on real Ray: its actor dies in the middle of a measurement."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from search.measure.bench import remote_latency, start_bench
from search.measure.latency import Latency
from search.study import Target
from tests.loops import save_loop


@pytest.fixture
def bench() -> Iterator[Any]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield start_bench()
    finally:
        ray.shutdown()


def pid_of(bench: Any) -> int:
    return ray.get(bench.__ray_call__.remote(lambda self: os.getpid()))


def test_the_death_of_the_actor_costs_a_repeat_and_nothing_else(bench: Any, tmp_path: Path) -> None:
    shorter, longer = save_loop(tmp_path / "shorter.onnx", 1_000), save_loop(tmp_path / "longer.onnx", 4_000)
    target = Target(runs=150, precision=1e-6, seconds=6.0)  # never known, so timed for six seconds
    first = pid_of(bench)
    pending: Any = bench.measure.remote(str(longer), str(shorter), target, 100_000)
    start = time.monotonic()
    time.sleep(3)
    os.kill(first, signal.SIGKILL)
    latency: Latency = ray.get(pending, timeout=120)
    assert time.monotonic() - start > 3 + 6  # begun anew
    assert latency.ratio == pytest.approx(4, rel=0.2)
    assert pid_of(bench) != first
    again = remote_latency(shorter, Target(runs=30))(longer, 30)
    assert again.ratio == pytest.approx(latency.ratio, rel=0.1)
