"""How a study is shown while it runs: a live view in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from search.live.capture import Capture, last_lines
from search.live.snapshot import Snapshot
from search.live.totals import Totals
from search.live.tracker import Display
from search.live.view import FrontPlot, view

LOG = "log.txt"  # in the study folder: what would have been printed into the view


def display_for(*, quiet: bool, out: TextIO | None = None, environment: Mapping[str, str] = os.environ) -> Display:
    """What fits where ``out`` (standard output) goes."""
    stream = out or sys.stdout
    if quiet:
        return Quiet()
    capable = environment.get("TERM", "dumb") not in {"dumb", "unknown", ""} and not environment.get("CI")
    unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"
    return View() if stream.isatty() and capable and unicode else Lines()


class Lines:
    """Prints a line for each stage and trial, so it reads the same in a pipe and in a log."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def open(self, folder: Path) -> None:
        """Nothing."""

    def event(self, text: str) -> None:
        """Prints it."""
        self._console.print(Text(text))

    def beat(self, snapshot: Snapshot, totals: Totals) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Quiet:
    """Shows nothing; what libraries print goes into the log of the study."""

    def __init__(self) -> None:
        self._capture: Capture | None = None

    def open(self, folder: Path) -> None:
        """Takes the output away."""
        self._capture = Capture(folder / LOG)

    def event(self, text: str) -> None:
        """Notes it in the log."""
        print(text, flush=True)

    def beat(self, snapshot: Snapshot, totals: Totals) -> None:
        """Nothing."""

    def close(self) -> None:
        """Gives the output back."""
        assert self._capture is not None
        self._capture.close()


class View:
    """Draws the whole terminal, and leaves it as it was.

    The terminal's other screen is used, and whatever else is printed meanwhile goes into the log of the study, also
    what C++ code prints: its last lines are in the view.
    """

    def open(self, folder: Path) -> None:
        """Takes the terminal over."""
        self._log, self._plot = folder / LOG, FrontPlot()
        self._terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        self._capture = Capture(self._log)
        self._console = Console(file=self._terminal, force_terminal=True, highlight=False)
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._resize()
        self._live.start()
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _leave)

    def event(self, text: str) -> None:
        """Notes it in the log, whose last lines are shown with the next beat."""
        print(text, flush=True)

    def beat(self, snapshot: Snapshot, totals: Totals) -> None:
        """Draws."""
        width, height = self._resize()
        sys.stdout.flush()
        log = last_lines(self._log, height)
        lines = view(snapshot, totals, log, width=width, height=height, plot=self._plot)
        self._live.update(Group(*lines), refresh=True)

    def close(self) -> None:
        """Gives the terminal back."""
        self._live.stop()
        self._capture.close()
        self._terminal.close()

    def _resize(self) -> tuple[int, int]:
        width, height = os.get_terminal_size(self._terminal.fileno())
        self._console.size = (width or 80, height or 24)
        return width or 80, height or 24


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process by an exception, so that the terminal is given back."""
    raise SystemExit(128 + number)
