"""One exclusive slot for measuring latency: a Ray actor that takes one request at a time, from all trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import ray

from search.measure.apart import Apart
from search.measure.latency import Latency
from search.study import Target

NAME = "bench"


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Bench:
    """Measures one candidate after the other, in a child process of its own.

    It holds no core: the CPU-time ratio does not mind a neighbour. If the actor dies, Ray starts it anew and makes the
    request again; if the child dies or hangs, the request fails and the next one has a new child.
    """

    def __init__(self) -> None:
        self._apart = Apart()

    def measure(self, candidate: str, baseline: str, target: Target, runs: int) -> Latency:
        """The candidate's latency beside the baseline's; see ``measure_latency``."""
        return self._apart.measure(Path(candidate), Path(baseline), target, runs)


def start_bench() -> Any:
    """Starts the actor under its name and returns its handle; it lives as long as the handle's driver."""
    return Bench.options(name=NAME, get_if_exists=True).remote()


def remote_latency(baseline: Path, target: Target) -> Callable[[Path, int], Latency]:
    """A function (file, runs) that has the actor measure, waiting for its turn."""
    bench = ray.get_actor(NAME)
    return lambda file, runs: cast(Latency, ray.get(bench.measure.remote(str(file), str(baseline), target, runs)))
