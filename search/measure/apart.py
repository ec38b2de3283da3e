"""Latency measured in a child process: a model that hangs or crashes its runtime takes nobody else with it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from search.measure.host import host_info
from search.measure.latency import Latency
from search.measure.quiet import measuring
from search.measure.worker import Worker
from search.target import Target

NOISY = "a training did not pause for it"
GRACE = 120.0  # seconds beyond an effort's own: loading two models, warming up, and a second attempt's overhead


class Apart:
    """Measures on a target, in a child of the target's environment; use it from one thread, as a context that ends it.

    ``python`` is another interpreter for the child.
    """

    def __init__(self, target: Target, python: Path | None = None) -> None:
        self._target, self._worker = target, Worker(target.environment, python=python)

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def measure(
        self, candidate: Path, runs: int | None = None, *, baseline: Path, timeout: float | None = None
    ) -> Latency:
        """What ``measure_latency`` gives on the target, from the child; at most the target's runs, if not given.

        It waits for its turn on this machine. ``timeout`` is in seconds; by default it is what the target's effort
        may take, and some.

        Raises:
            UserError: the target's environment cannot be made.
            MeasurementError: as ``measure_latency`` does, and when the child hangs or dies.
        """
        target = self._target
        effort = target.effort(runs or target.runs)
        request = {
            "do": "measure",
            "candidate": str(candidate),
            "baseline": str(baseline),
            "runtime": asdict(target.as_runtime),
            "effort": asdict(effort),
            "cores": target.cores,
        }
        seconds = 2 * effort.seconds + GRACE if timeout is None else timeout
        self._worker.prepare()  # which may take minutes, and no turn
        with measuring(quiet=target.pauses_training) as still:
            answer = self._worker.ask(request, about=candidate, seconds=seconds)
        latency = Latency(**answer["latency"] | {"host": host_info(target.as_runtime).id})
        return latency if still or not target.pauses_training else replace(latency, doubts=(*latency.doubts, NOISY))

    def close(self) -> None:
        """Ends the child, if there is one."""
        self._worker.close()

    @property
    def pid(self) -> int | None:
        """The child's process, if there is one."""
        return self._worker.pid
