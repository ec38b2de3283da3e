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
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.measure.latency import Latency, MeasurementError, measure_latency
from search.measure.pairs import Effort

if TYPE_CHECKING:  # the child needs none of it
    from search.study import Target

GRACE = 120.0  # seconds beyond an effort's own: loading two models, warming up, and a second attempt's overhead


class Apart:
    """A child process that measures; use it from one thread."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def measure(
        self, candidate: Path, baseline: Path, target: Target, runs: int, *, timeout: float | None = None
    ) -> Latency:
        """What ``measure_latency`` gives on ``target`` with at most so many runs, from the child.

        ``timeout`` is in seconds; by default it is what the target's effort may take, and some.

        Raises:
            MeasurementError: as ``measure_latency`` does, and when the child hangs or dies.
        """
        effort = target.effort(runs)
        request = {
            "candidate": str(candidate),
            "baseline": str(baseline),
            "threads": target.threads,
            "effort": asdict(effort),
            "cores": target.cores,
        }
        seconds = 2 * effort.seconds + GRACE if timeout is None else timeout
        answer = self._ask(request, candidate, seconds)
        if "error" in answer:
            raise MeasurementError(answer["error"])
        return Latency(**answer["latency"])

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
            command = [sys.executable, "-m", "search.measure.apart"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
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
        return json.loads(line)


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


def _serve() -> None:
    """Answers requests until standard input ends, or the parent does."""
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a runtime prints is no answer
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _leave_with(parent: int) -> None:
    """Ends this process, also in the middle of a model that hangs, when its parent is no more."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    paths = {name: Path(request.pop(name)) for name in ("candidate", "baseline")}
    effort = Effort(**request.pop("effort"))
    try:
        return {"latency": asdict(measure_latency(**paths, effort=effort, **request))}
    except MeasurementError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    _serve()
