"""How files that grow line by line live behind a URL, where nothing can be appended to.

``records.jsonl`` becomes a folder of parts, ``records.jsonl/000000``, ``000001``, …: its lines, cut where a part has
``PART`` bytes. Only the last part changes, so a record costs one request and half a part on average, however many
there are; written whole, the file would cost its square. What is read back is the parts in their order.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from search.storage.location import Location

PART = 256 * 1024  # bytes
LOGS = ("started.jsonl", "records.jsonl", "final.jsonl")  # in the order in which they are written


class GrowingLog:
    """One such file: what of it is behind the URL.

    Args:
        location: the study's.
        path: the file here.
        there: what is there already, part by part.
    """

    def __init__(self, location: Location, path: Path, there: list[bytes]) -> None:
        self._location, self._path = location, path
        self._there = there  # from the first part that can still change
        self._sealed, self._offset = 0, 0  # parts that do not change any more, and their bytes

    def snapshot(self) -> list[bytes]:
        """The parts, as the file is now, that can differ from what is there."""
        return cut(whole_lines_of(self._path, self._offset))

    def send(self, parts: list[bytes]) -> None:
        """Writes what differs of ``parts``, a snapshot, in order. Raises OSError; then it can be called again."""
        if not parts:
            return
        for index, content in enumerate(parts):
            if index >= len(self._there) or self._there[index] != content:
                self._location.write(_name(self._path.name, self._sealed + index), content)
                self._there[index : index + 1] = [content]
        for index in range(len(parts), len(self._there)):  # of a file that was cut otherwise
            self._location.delete(_name(self._path.name, self._sealed + index))
        self._sealed += len(parts) - 1
        self._offset += sum(map(len, parts[:-1]))
        self._there = parts[-1:]


def read_log(location: Location, name: str, pool: ThreadPoolExecutor) -> list[bytes]:
    """The parts of a log behind a URL."""
    there = location.entries(name)
    names = sorted(part for part in there if part.rpartition("/")[2].isdigit())  # not one that is being written
    return [content or b"" for content in pool.map(location.read, names)]


def cut(content: bytes) -> list[bytes]:
    """``content``, whole lines, in parts of at least ``PART`` bytes but the last; the same beginning is cut alike."""
    parts, start = [], 0
    while start < len(content):
        end = content.find(b"\n", start + PART - 1) + 1 or len(content)
        parts.append(content[start:end])
        start = end
    return parts


def merged(name: str, there: bytes, here: bytes) -> bytes:
    """All lines: those ``there``, then those ``here`` that are not among them; of a record by its id.

    They differ where a driver was cut off before it had sent everything, and the study went on elsewhere.
    """
    if here.startswith(there):
        return here
    if there.startswith(here):
        return there
    known = {_key(name, line) for line in there.splitlines(keepends=True)}
    return there + b"".join(line for line in here.splitlines(keepends=True) if _key(name, line) not in known)


def _key(name: str, line: bytes) -> object:
    return json.loads(line)["id"] if name == "records.jsonl" else line


def _name(log: str, part: int) -> str:
    return f"{log}/{part:06d}"


def whole_lines_of(path: Path, offset: int = 0) -> bytes:
    """What the file holds from ``offset`` to the end of its last whole line; nothing if it is not there."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    return content[: content.rfind(b"\n") + 1]
