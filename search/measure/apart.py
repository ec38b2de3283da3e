"""Latency measured in a child process: a model that hangs or crashes its runtime takes nobody else with it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.measure.batched import rewritten
from search.measure.host import HostInfo, host_info
from search.measure.latency import Latency, usable_cores
from search.measure.pairs import Effort
from search.measure.profile import Profile, profile_from
from search.measure.quiet import measuring
from search.measure.several import Several
from search.measure.worker import Worker
from search.runtimes.session import Runtime
from search.target import Target

NOISY = "a training did not pause for it"
PROFILING = 1200.0  # seconds; a profile of a usual model takes about one minute
GRACE = 120.0  # seconds beyond an effort's own: loading two models, warming up, and a second attempt's overhead
A_PICTURE = 10.0  # seconds of that for each picture in a run after the first


class Apart:
    """Measures on a target, in a child of the target's environment; use it from one thread, as a context that ends it.

    ``python`` is another interpreter for the child.
    """

    def __init__(self, target: Target, python: Path | None = None) -> None:
        self._target, self._worker = target, Worker(target.environment, python=python)
        self._grace = GRACE + A_PICTURE * (target.batch - 1)
        self._several = Several(self._worker, target.batch, seconds=self._grace)

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @cached_property
    def host(self) -> HostInfo:
        """This machine; looked at once, since a driver that is slow to answer would make it another one."""
        return host_info(self._target.as_runtime)

    def measure(
        self,
        candidate: Path,
        effort: Effort | None = None,
        *,
        baseline: Path,
        baseline_runtime: Runtime | None = None,
        timeout: float | None = None,
    ) -> Latency:
        """What ``measure_latency`` gives on the target, from the child; with the target's effort, if not given.

        Files are for one picture; with the target's ``batch`` they are rewritten for so many, and both are timed so.
        It waits for its turn on this machine. ``baseline_runtime`` runs the baseline, if that is for another target;
        the target's environment must have it. ``timeout`` is in seconds; by default it is what the target's effort
        may take, and some, and what building the two files may.

        Raises:
            UserError: the target's environment cannot be made.
            MeasurementError: as ``measure_latency`` does, when the child hangs or dies, and when a file does not
                answer the target's batch of pictures as it answers each alone.
        """
        target, runtime = self._target, self._target.as_runtime
        effort, other = effort or target.effort(), baseline_runtime or runtime
        building = runtime.part.building + other.part.building
        seconds = 2 * effort.seconds + self._grace + building if timeout is None else timeout
        self._worker.prepare()  # which may take minutes, and no turn
        with (
            measuring(quiet=target.pauses_training) as still,
            self._several.files((candidate, runtime), (baseline, other)) as (ours, theirs),
        ):
            request = {
                "do": "measure",
                "candidate": str(ours),
                "baseline": str(theirs),
                "runtime": asdict(runtime),
                "baseline_runtime": asdict(other),
                "effort": asdict(effort),
                "cores": target.cores,
                "batch": target.batch,
            }
            answer = self._worker.ask(request, about=candidate, seconds=seconds)
        latency = Latency(**answer["latency"] | {"host": self.host.id})
        return latency if still or not target.pauses_training else replace(latency, doubts=(*latency.doubts, NOISY))

    def profile(
        self,
        candidate: Path,
        *,
        baseline: Path,
        images: Sequence[NDArray[np.uint8]],
        batch: int,
        streams: int | None = None,
    ) -> Profile:
        """What ``profile_model`` gives on the target, from the child, while trainings on this machine pause.

        Without ``streams`` there are as many as fill the cores.

        Raises:
            MeasurementError: as ``profile_model`` does, and when the child hangs or dies.
        """
        target = self._target
        self._worker.prepare()
        with tempfile.TemporaryDirectory(prefix="yolo-front-profile-") as folder, measuring(quiet=True):
            np.savez(Path(folder) / "images.npz", *images)
            request = {
                "do": "profile",
                "candidate": str(candidate),
                "baseline": str(baseline),
                "runtime": asdict(target.as_runtime),
                "batch": batch,
                "batched": rewritten((candidate, baseline), Path(folder), batch, target.format),
                "streams": streams or max(1, len(target.cores or usable_cores()) // target.threads),
                "images": str(Path(folder) / "images.npz"),
                "cores": target.cores,
            }
            seconds = PROFILING + 4 * target.as_runtime.part.building  # both files, for one picture and for several
            return profile_from(self._worker.ask(request, about=candidate, seconds=seconds)["profile"])

    def close(self) -> None:
        """Ends the child, if there is one."""
        self._worker.close()
        self._several.close()

    @property
    def pid(self) -> int | None:
        """The child's process, if there is one."""
        return self._worker.pid
