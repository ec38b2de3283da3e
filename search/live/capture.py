"""Standard output and error of a process put into a file for a while, also what C++ code writes there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TAIL = 8192  # bytes that are read for the last lines


class Capture:
    """From now until ``close``, what is written to the descriptors 1 and 2 is added to the file."""

    def __init__(self, path: Path) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._before = [os.dup(number) for number in (1, 2)]
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(file, number)
        os.close(file)

    def close(self) -> None:
        """Gives both back."""
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), self._before, strict=True):
            os.dup2(before, number)
            os.close(before)


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a text file, without colours and other control characters; the first may be cut.

    None of a file that is not there any more.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - TAIL))
        text = file.read().decode(errors="replace")
    lines = [_plain(line.rsplit("\r", 1)[-1]) for line in text.split("\n")]
    return [line for line in lines if line.strip()][-count:]


def _plain(line: str) -> str:
    from rich.text import Text

    text = Text.from_ansi(line.expandtabs(4)).plain
    return "".join(char for char in text if char.isprintable())
