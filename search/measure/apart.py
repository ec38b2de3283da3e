"""Latency measured in a child process: a model that hangs or crashes its runtime takes nobody else with it.

The child is started once and serves one request after the other, one JSON object a line on its standard input and
output. It is ended when an answer does not come in time, and started anew for the next request.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.measure.batched import rewritten
from search.measure.host import host_info
from search.measure.latency import Latency, usable_cores
from search.measure.pairs import Effort
from search.measure.profile import Profile, profile_from
from search.measure.quiet import measuring
from search.target import Target

ROOT = Path(__file__).resolve().parents[2]
NOISY = "a training did not pause for it"
PROFILING = 1200.0  # seconds; a profile of a usual model takes about one minute
GRACE = 120.0  # seconds beyond an effort's own: loading two models, warming up, and a second attempt's overhead


class Apart:
    """A child process that measures on a target; use it from one thread, and as a context that ends it.

    ``python`` is the interpreter of the environment that has the target's runtime, this one if not given.
    """

    def __init__(self, target: Target, python: Path | None = None) -> None:
        self._target, self._python = target, python or Path(sys.executable)
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def measure(
        self, candidate: Path, effort: Effort | None = None, *, baseline: Path, timeout: float | None = None
    ) -> Latency:
        """What ``measure_latency`` gives on the target, from the child; with the target's effort, if not given.

        It waits for its turn on this machine. ``timeout`` is in seconds; by default it is what the target's effort
        may take, and some.

        Raises:
            MeasurementError: as ``measure_latency`` does, and when the child hangs or dies.
        """
        target = self._target
        effort = effort or target.effort()
        request = {
            "candidate": str(candidate),
            "baseline": str(baseline),
            "runtime": asdict(target.as_runtime),
            "effort": asdict(effort),
            "cores": target.cores,
        }
        seconds = 2 * effort.seconds + GRACE if timeout is None else timeout
        with measuring(quiet=target.pauses_training) as still:
            answer = self._ask(request, candidate, seconds)
        latency = Latency(**answer["latency"] | {"host": host_info().id})
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
        with tempfile.TemporaryDirectory(prefix="yolo-front-profile-") as folder, measuring(quiet=True):
            np.savez(Path(folder) / "images.npz", *images)
            request = {
                "kind": "profile",
                "candidate": str(candidate),
                "baseline": str(baseline),
                "runtime": asdict(target.as_runtime),
                "batch": batch,
                "batched": rewritten((candidate, baseline), Path(folder), batch, target.format),
                "streams": streams or max(1, len(target.cores or usable_cores()) // target.threads),
                "images": str(Path(folder) / "images.npz"),
                "cores": target.cores,
            }
            return profile_from(self._ask(request, candidate, PROFILING)["profile"])

    def close(self) -> None:
        """Ends the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    @property
    def pid(self) -> int | None:
        """The child's process, if there is one."""
        return self._child.pid if self._child is not None else None

    def _ask(self, request: dict[str, Any], candidate: Path, seconds: float) -> dict[str, Any]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            command = [str(self._python), "-m", "search.measure.child"]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
            )
        child = self._child
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            line = _read_line(child, seconds)
        except BrokenPipeError:
            line = b""
        except TimeoutError:
            self.close()
            raise MeasurementError(
                f"{candidate} gave no answer in {seconds:g} s: it hangs its runtime; try another precision or opset"
            ) from None
        if not line.endswith(b"\n"):
            code = child.wait()
            self.close()
            raise MeasurementError(f"{candidate} crashed its runtime ({_why(code)}); try another precision or opset")
        answer = json.loads(line)
        if "error" in answer:
            raise MeasurementError(answer["error"])
        return answer


def _read_line(child: subprocess.Popen[bytes], seconds: float) -> bytes:
    """What the child writes up to the end of a line, or until it ends; raises TimeoutError."""
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        if not selector.select(seconds):
            raise TimeoutError
    return child.stdout.readline()  # an answer is short, and written at once


def _why(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"exit code {code}"
