"""Which display is chosen, and what becomes of what libraries print meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.live.capture import last_lines
from search.live.displays import Lines, Quiet, View, display_for


class Stream:
    """Standard output, as far as it is asked."""

    def __init__(self, terminal: bool, encoding: str = "utf-8") -> None:
        self.encoding, self._terminal = encoding, terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("stream", "environment", "kind"),
    [
        (Stream(True), {"TERM": "xterm"}, View),
        (Stream(False), {"TERM": "xterm"}, Lines),
        (Stream(True), {"TERM": "dumb"}, Lines),
        (Stream(True), {}, Lines),
        (Stream(True), {"TERM": "xterm", "CI": "true"}, Lines),
        (Stream(True, "ascii"), {"TERM": "xterm"}, Lines),
    ],
)
def test_a_view_needs_a_terminal_that_can_show_it(stream: Any, environment: dict[str, str], kind: type) -> None:
    assert isinstance(display_for(quiet=False, out=stream, environment=environment), kind)
    assert isinstance(display_for(quiet=True, out=stream, environment=environment), Quiet)


def test_what_is_written_below_python_is_caught_too(tmp_path: Path) -> None:
    program = f"""
import os, sys, warnings
from pathlib import Path
from search.live.capture import Capture
print("before")
capture = Capture(Path({str(tmp_path / "log.txt")!r}))
print("python"); warnings.warn("a warning"); os.write(2, b"from C\\n"); os.system("echo from a child")
capture.close()
print("after"); print("an error", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("before\nafter\n", "an error\n")
    log = (tmp_path / "log.txt").read_text()
    assert all(words in log for words in ("python\n", "a warning", "from C\n", "from a child\n"))


def test_the_last_lines_hold_nothing_that_moves_the_cursor(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"first\n" + b"x" * 20_000 + b"\n\x1b[31mred\x1b[0m\x1b[2J\n10%\r20%\n\n\xff\ttab\x07\n")
    assert last_lines(path, 3) == ["red", "20%", "\ufffd   tab"]
    assert last_lines(tmp_path / "gone", 3) == []
    assert last_lines(path, 100)[0] == "x" * len(last_lines(path, 100)[0])
