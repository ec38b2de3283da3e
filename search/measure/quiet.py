"""Turns on one machine: one measurement at a time, and, where one asks for it, no training meanwhile.

Three locks on files that all processes of a user on this machine share; they go with the process that holds them. Who
measures holds ``bench``, and for quiet also closes the ``gate`` and waits until all who work are behind it. Who
trains holds ``work`` together with others, and gives it up at the gate, between two batches, and while it waits for
what another process does: that may have to pass the gate itself.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PATIENCE = 60.0  # seconds that a measurement waits for a batch to end; a worker that hangs must not stop the study
POLL = 0.02

_turns: list[_Turn] = []  # of the work that this process does, if any


@contextmanager
def measuring(*, quiet: bool, patience: float = PATIENCE) -> Generator[bool]:
    """Takes the machine's turn to measure; yields whether all training has stopped, False where it need not.

    Args:
        quiet: whether trainings pause.
        patience: seconds to wait for them to.
    """
    with _file("bench") as bench, _file("gate") as gate, _file("work") as work:
        fcntl.flock(bench, fcntl.LOCK_EX)
        if not quiet:
            yield False
            return
        fcntl.flock(gate, fcntl.LOCK_EX)
        deadline, still = time.monotonic() + patience, False
        while not (still := _try(work, fcntl.LOCK_EX)) and time.monotonic() < deadline:
            time.sleep(POLL)
        yield still


@contextmanager
def working() -> Generator[Callable[[], None]]:
    """Holds the machine for work that can pause; yields what to call between two pieces of it, which may wait.

    Work inside of work of the same process pauses with it.
    """
    if _turns:
        yield _turns[0].pause
        return
    with _file("gate") as gate, _file("work") as work:
        turn = _Turn(gate, work)
        turn.pause()
        _turns.append(turn)
        try:
            yield turn.pause
        finally:
            _turns.clear()


@contextmanager
def waiting_for_others() -> Generator[None]:
    """Gives up the machine meanwhile, if this process holds it for work."""
    [turn] = _turns or [None]
    if turn is not None:
        fcntl.flock(turn.work, fcntl.LOCK_UN)
    try:
        yield
    finally:
        if turn is not None:
            turn.pause()


@dataclass(frozen=True)
class _Turn:
    """The locks of who works: the gate, which is passed, and the work, which is held."""

    gate: IO[bytes]
    work: IO[bytes]

    def pause(self) -> None:
        if not _try(self.gate, fcntl.LOCK_SH):
            fcntl.flock(self.work, fcntl.LOCK_UN)
            fcntl.flock(self.gate, fcntl.LOCK_SH)
        fcntl.flock(self.gate, fcntl.LOCK_UN)
        fcntl.flock(self.work, fcntl.LOCK_SH)


def machine_folder() -> Path:
    """The folder of what all processes of this user on this machine share."""
    folder = Path(tempfile.gettempdir()) / f"yolo-front-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def _file(name: str) -> Generator[IO[bytes]]:
    with (machine_folder() / f"{name}.lock").open("wb") as file:
        yield file


def _try(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
