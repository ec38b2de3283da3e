"""A command in a pseudo-terminal, with what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest


class Terminal:
    """Runs a command in a terminal of its own and draws what it prints; ``frames`` are the screens that stood still."""

    def __init__(self, command: Sequence[object], *, columns: int = 80, lines: int = 24, **process: Any) -> None:
        pyte = pytest.importorskip("pyte", reason="pyte is not installed: make setup")
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw, self.frames = b"", list[list[str]]()
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C reaches it
            **process,
        )
        os.close(theirs)

    def until(self, condition: Callable[[str], bool], seconds: float) -> str:
        """Reads until the screen's text fulfils the condition, and returns it."""
        end = time.monotonic() + seconds
        while not condition(self.text):
            assert time.monotonic() < end, f"it never came; the screen is\n{self.text}"
            assert self._read(), f"the command ended before; the screen is\n{self.text}"
        return self.text

    def finish(self, seconds: float) -> int:
        """Reads until the command has ended, and returns its exit code."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"it goes on; the screen is\n{self.text}"
        os.close(self._mine)
        return self.process.wait(30)

    def type(self, keys: bytes) -> None:
        """Types keys; b"\\x03" is Ctrl-C."""
        os.write(self._mine, keys)

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def _read(self) -> bool:
        """Whether there may be more."""
        if select.select([self._mine], [], [], 0.2)[0]:
            try:
                content = os.read(self._mine, 65536)
            except OSError:  # the other end is closed
                return False
            self.raw += content
            self._stream.feed(content)
        elif not self.frames or self.frames[-1] != self.screen.display:  # nothing more comes: it is drawn to its end
            self.frames.append(list(self.screen.display))
        return True


def given_back(raw: bytes) -> bool:
    """Whether a terminal that was printed this has its first screen again, and a cursor."""
    pairs = ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h"))
    return all(raw.rindex(back) > raw.rindex(taken) for taken, back in pairs)
