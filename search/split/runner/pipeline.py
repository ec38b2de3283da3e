"""Runs the stages of a split model at once, each in a process on its own device, one picture behind the other.

    with Pipeline(Path("stages")) as pipeline:
        futures = [pipeline.submit([picture]) for picture in pictures]
        outputs = [future.result() for future in futures]

Tensors are handed on in shared memory without a name, messages through pipes: when the last process that has them
ends, however it ends, the system frees both, so nothing is left behind. Needs numpy and onnxruntime only, and
stage.py beside it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .stage import Ring

FILE = "split.json"
STAGE = Path(__file__).resolve().parent / "stage.py"
LOADING = 120.0  # seconds, at most
ENDING = 5.0
_DEVICE = re.compile(r"cpu(?::(\d+)(?:-(\d+))?)?|(cuda)(?::(\d+))?")

Outputs = list[NDArray[Any]]


class PipelineError(RuntimeError):
    """What went wrong, in which stage."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where a stage runs: on these CPU ``cores``, one thread on each, or on the GPU of this number.

    Without any cores it has one thread and goes where the system puts it.
    """

    provider: str = "cpu"
    number: int = 0
    cores: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Device:
        """Of ``cpu``, ``cpu:3``, ``cpu:0-3`` or ``cuda:1``.

        Raises:
            PipelineError: it is none of these.
        """
        match = _DEVICE.fullmatch(text.strip())
        first, last, gpu, number = match.groups() if match else (None, None, None, None)
        cores = tuple(range(int(first), int(last or first) + 1)) if first else ()
        if not match or (first and not cores):
            raise PipelineError(f"{text!r} is no device; give cpu, cpu:3 (a core), cpu:0-3 (cores) or cuda:1 (a GPU)")
        return cls(provider=gpu, number=int(number or 0)) if gpu else cls(cores=cores)


def read_about(folder: Path) -> dict[str, Any]:
    """The content of ``split.json``.

    Raises:
        PipelineError: there is none that can be read.
    """
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(f"{folder} is no split model: {error}; make it with `python -m search split`") from error


def devices_of(about: dict[str, Any]) -> list[Device]:
    """Where the stages are to run: as ``split.json`` says, else a core each."""
    named = [Device.parse(stage["device"]) for stage in about["stages"] if "device" in stage]
    return named or _spread(len(about["stages"]))


def _spread(stages: int) -> list[Device]:
    """A core for each stage, of those that this process may use; the last first, and again if they are too few."""
    if not hasattr(os, "sched_getaffinity"):
        return [Device()] * stages
    usable = sorted(os.sched_getaffinity(0), reverse=True)
    return [Device(cores=(usable[number % len(usable)],)) for number in range(stages)]


class Pipeline:
    """A running pipeline; use it as a context that ends it. Any thread may call it.

    Attributes:
        about: the content of ``split.json``.
        depth: pictures that are in it at once, at most; two a stage, one that is computed and one that waits.
        pids: the process of each stage.
    """

    def __init__(self, folder: Path, devices: Sequence[Device] | None = None) -> None:
        """Starts the stages in ``folder``; on the devices of ``split.json``, or a core each, if none are given.

        Raises:
            PipelineError: a stage cannot be loaded where it is to run.
        """
        self.about = read_about(folder)
        stages, borders = self.about["stages"], self.about["borders"]
        devices = devices or devices_of(self.about)
        if len(devices) != len(stages):
            raise PipelineError(f"{folder} has {len(stages)} stages; {len(devices)} devices were given for them")
        self.depth = 2 * len(stages)
        self._room = threading.Semaphore(self.depth)
        self._lock = threading.Lock()
        self._waiting: deque[Future[Outputs]] = deque()
        self._sent = self._received = 0
        self._broken = ""
        self._children: list[subprocess.Popen[bytes]] = []
        memories = [_memory() for _ in borders]
        self._inputs = Ring(memories[0], borders[0], self.depth).slots
        self._outputs = Ring(memories[-1], borders[-1], self.depth).slots
        pipes = [Pipe(duplex=False) for _ in borders]
        self._answers, self._requests = pipes[-1][0], pipes[0][1]
        try:
            for number, (stage, device) in enumerate(zip(stages, devices, strict=True)):
                given = {
                    "about": f"stage {number + 1} of {len(stages)} ({stage['file']})",
                    "model": str(folder / stage["file"]),
                    "provider": device.provider,
                    "device": device.number,
                    "cores": device.cores,
                    "slots": self.depth,
                    "inputs": borders[number],
                    "outputs": borders[number + 1],
                }
                self._start(given, (pipes[number][0], pipes[number + 1][1]), memories[number : number + 2])
        finally:  # the stages have these now; a pipe whose other end is nobody's is closed
            for ending in [end for pipe in pipes for end in pipe]:
                if ending not in (self._answers, self._requests):
                    ending.close()
            for memory in memories:
                os.close(memory)
        self._await_loaded()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Pipeline:
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends it."""
        self.close()

    @property
    def broken(self) -> str:
        """Why it takes no more pictures; empty if it does."""
        return self._broken

    @property
    def pids(self) -> list[int]:
        """The processes of the stages."""
        return [child.pid for child in self._children]

    def submit(self, arrays: Sequence[NDArray[Any]]) -> Future[Outputs]:
        """Takes a picture, waiting for room; the future has the outputs of the whole model.

        Args:
            arrays: the model's inputs, in its order.

        Raises:
            PipelineError: the pipeline has ended; a stage's error is raised by the future.
            ValueError: an array of another shape or type than the model's input.
        """
        expected = self.about["borders"][0]
        given = [(list(array.shape), array.dtype.name) for array in arrays]
        if given != (wanted := [(item["shape"], item["dtype"]) for item in expected]):
            raise ValueError(f"the model takes {wanted}, not {given}")
        self._room.acquire()
        with self._lock:
            if self._broken:
                self._room.release()
                raise PipelineError(self._broken)
            slot = self._inputs[self._sent % self.depth]
            for item, array in zip(expected, arrays, strict=True):
                np.copyto(slot[item["name"]], array)
            future: Future[Outputs] = Future()
            future.set_running_or_notify_cancel()  # it cannot be cancelled any more
            self._waiting.append(future)
            self._sent += 1
            with suppress(OSError):  # the first stage is gone: the reader sees it too, and tells all who wait
                self._requests.send_bytes(b"")
        return future

    def run(self, arrays: Sequence[NDArray[Any]], seconds: float | None = None) -> Outputs:
        """The outputs for one picture. Raises as ``submit``, and TimeoutError after so many seconds."""
        return self.submit(arrays).result(seconds)

    def close(self) -> None:
        """Answers what was submitted, and ends the processes."""
        with self._lock:
            self._broken = self._broken or "the pipeline is closed"
            self._requests.close()
        self._reader.join(LOADING)
        self._end()

    def _start(self, given: dict[str, Any], ends: tuple[Connection, Connection], memories: Sequence[int]) -> None:
        before, behind = memories
        files = {"source": ends[0].fileno(), "sink": ends[1].fileno(), "before": before, "behind": behind}
        command = [sys.executable, "-P", str(STAGE), json.dumps(given | files)]
        self._children.append(subprocess.Popen(command, pass_fds=list(files.values()), stdin=subprocess.DEVNULL))

    def _await_loaded(self) -> None:
        try:
            self._requests.send_bytes(b"")
            failed = self._answers.recv_bytes().decode() if self._answers.poll(LOADING) else "a stage does not load"
        except (EOFError, OSError):
            failed = self._post_mortem()
        if failed:
            self._requests.close()
            self._end()
            raise PipelineError(failed)

    def _read(self) -> None:
        """Hands answers to those who wait, until the last stage has gone."""
        with suppress(EOFError, OSError):
            while True:
                failed = self._answers.recv_bytes().decode()
                slot = self._outputs[self._received % self.depth]
                outputs = [] if failed else [slot[item["name"]].copy() for item in self.about["borders"][-1]]
                self._received += 1
                future = self._waiting.popleft()
                self._room.release()
                if failed:
                    future.set_exception(PipelineError(failed))
                else:
                    future.set_result(outputs)
        with self._lock:
            self._broken = self._broken or self._post_mortem()
            left = list(self._waiting)
            self._waiting.clear()
        for future in left:
            future.set_exception(PipelineError(self._broken))
            self._room.release()

    def _post_mortem(self) -> str:
        """Ends a broken pipeline; says which stages had died of themselves."""
        self._requests.close()
        dead = [f"stage {number} ({_why(code)})" for number, code in enumerate(self._end(), 1) if code]
        return f"the pipeline has ended: {', '.join(dead) or 'a stage'} died; start it again"

    def _end(self) -> list[int]:
        """Waits for the stages, which end by themselves when their pipes are closed, and ends those that do not.

        Returns:
            Their exit codes, 0 for those that had to be ended.
        """
        codes: list[int] = []
        for child in self._children:
            try:
                codes.append(child.wait(ENDING))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                codes.append(0)
        return codes


def _memory() -> int:
    """A file in memory, without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("pipeline", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _why(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
