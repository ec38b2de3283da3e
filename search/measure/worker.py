"""A child process that answers one request after the other: a model that hangs or crashes its runtime stays there.

Requests and answers are JSON objects, one a line, on the child's standard input and output. The child is started when
it is first asked, ended when an answer does not come in time, and started anew for the next request. It may run in
another Python environment than this process.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.environments import Environment, python_of
from search.errors import MeasurementError

ROOT = Path(__file__).resolve().parents[2]


def environment_of(requirements: Sequence[str]) -> Environment:
    """The environment of a runtime with its packages; the same for all targets that ask for the same."""
    return Environment("runtime", tuple(requirements))


class Worker:
    """A child; use it from one thread, and as a context that ends it.

    Args:
        environment: packages for which it gets an environment of its own, made when it is first asked; without any
            it has the interpreter and the packages of this process.
        python: another interpreter.
    """

    def __init__(self, environment: Sequence[str] = (), *, python: Path | None = None) -> None:
        self._environment, self._python = tuple(environment), python
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Makes its environment, if it has one that is not there.

        Raises:
            UserError: it cannot be made.
        """
        if self._python is None:
            own = self._environment
            self._python = python_of(environment_of(own)) if own else Path(sys.executable)

    def ask(self, request: dict[str, Any], *, about: Path, seconds: float) -> dict[str, Any]:
        """The child's answer, which comes within so many seconds.

        Args:
            request: what ``search.measure.child`` knows.
            about: the model file that errors name.
            seconds: how long to wait.

        Raises:
            MeasurementError: the child says so, hangs or dies.
        """
        self.prepare()
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            line = _read_line(child, seconds)
        except BrokenPipeError:
            line = b""
        except TimeoutError:
            self.close()
            raise MeasurementError(
                f"{about} gave no answer in {seconds:g} s: it hangs its runtime; try another precision or opset"
            ) from None
        if not line.endswith(b"\n"):
            code = child.wait()
            self.close()
            raise MeasurementError(f"{about} crashed its runtime ({_why(code)}); try another precision or opset")
        answer = json.loads(line)
        if "error" in answer:
            raise MeasurementError(answer["error"])
        return answer

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

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            command = [str(self._python), "-P", "-s", "-m", "search.measure.child"]  # no modules of other folders
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
            )
        return self._child


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
