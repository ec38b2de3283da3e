"""Which display is chosen, and what becomes of what libraries print meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.live.capture import last_lines
from search.live.displays import Lines, Quiet, View, display_for
from tests.terminal import Terminal, given_back

ROOT = Path(__file__).resolve().parents[2]


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


PROGRAM = """
import os, sys, time, warnings
from pathlib import Path
from search.live.displays import View
from search.live.tracker import Tracker
from search.store import Store
from tests.studies import study
folder = Path(sys.argv[1])
with Tracker(study(), folder, Store(folder), View()) as tracker:
    tracker.stage("working")
    for number in range(100):
        warnings.warn(f"warning {number}"); os.write(2, b"\\x1b[2J\\x1b[5;5Hfrom C\\n" * 3); print("printed")
        time.sleep(0.3)
"""


@pytest.mark.parametrize("end", ["Ctrl-C", "kill"])
def test_what_is_printed_tears_nothing_and_the_terminal_is_given_back(tmp_path: Path, end: str) -> None:
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    terminal = Terminal([sys.executable, "-c", PROGRAM, tmp_path], cwd=ROOT, env=environment)
    terminal.until(lambda text: "working" in text and "printed" in text, 60)
    terminal.until(lambda text: "0:03" in text.split("\n")[0], 30)
    if end == "Ctrl-C":
        terminal.type(b"\x03")
    else:
        terminal.process.terminate()
    assert terminal.finish(60) != 0
    for frame in terminal.frames[1:-1]:
        assert frame[0].startswith("cats  working")
        [log] = [row for row, line in enumerate(frame) if line.startswith("── log ─")]
        assert not any("from C" in line or "printed" in line for line in frame[:log])
    assert given_back(terminal.raw)
