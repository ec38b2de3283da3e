"""How a folder comes through a job's log: an index of its files, then pieces of them in base64, a line each.

The log holds what Ray says about the job as well, so each line of ours has a mark. The index is made once; a piece is
asked for by path, offset and length, and a file is right when its SHA-256 is that of the index. ``records.jsonl`` comes
first: a study writes an artifact before the record that names it, so an index of a running study names no file that it
does not hold.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from cluster.errors import UserError

INDEX_MARK = "yolo-front-index "
PIECE_MARK = "yolo-front-piece "
PIECE = 2**20  # bytes
FIRST = "records.jsonl"
LEFT = frozenset({"cache", "data"})  # made by the study for itself: results of stages, links to the data


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of the folder: its path in it, its size in bytes, its SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Piece:
    """``length`` bytes of the file ``path``, from ``offset``."""

    path: str
    offset: int
    length: int


def index(folder: Path) -> list[Entry]:
    """The files of a study folder but what it made for itself, hidden ones and links."""
    first = [folder / FIRST] if (folder / FIRST).is_file() else []
    entries = [_entry(file, folder) for file in first]  # digested before the others are looked for
    for file in sorted(folder.rglob("*")):
        if file not in first and _is_result(file, folder):
            with suppress(FileNotFoundError):  # a temporary one of a study that runs
                entries.append(_entry(file, folder))
    return entries


def _is_result(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    return (
        parts[0] not in LEFT and not any(p.startswith(".") for p in parts) and file.is_file() and not file.is_symlink()
    )


def _entry(file: Path, folder: Path) -> Entry:
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return Entry(path=file.relative_to(folder).as_posix(), size=handle.tell(), sha256=digest)


def is_whole(folder: Path, entry: Entry) -> bool:
    """Whether ``folder`` has the file, as it was when the index was made."""
    file = folder / entry.path
    return file.is_file() and file.stat().st_size == entry.size and _entry(file, folder) == entry


def pieces(entries: Iterable[Entry], length: int = PIECE) -> list[Piece]:
    """What must be asked for to have all of ``entries``."""
    return [
        Piece(path=entry.path, offset=offset, length=min(length, entry.size - offset))
        for entry in entries
        for offset in range(0, entry.size, length)
    ]


def index_line(entries: Iterable[Entry]) -> str:
    """One line of the log."""
    return INDEX_MARK + json.dumps([asdict(entry) for entry in entries])


def piece_lines(folder: Path, wanted: Iterable[Piece]) -> Iterator[str]:
    """A line of the log for each piece, in their order."""
    for number, piece in enumerate(wanted):
        with (folder / piece.path).open("rb") as file:
            file.seek(piece.offset)
            yield f"{PIECE_MARK}{number} {base64.b64encode(file.read(piece.length)).decode()}"


def read_index(log: str) -> list[Entry]:
    """The index in a log. Raises UserError if there is none, or a path in it leads out of the folder."""
    lines = [line for line in log.splitlines() if line.startswith(INDEX_MARK)]
    if len(lines) != 1:
        raise UserError("the cluster's list of the study's files did not arrive; try again")
    entries = [Entry(**content) for content in json.loads(lines[0].removeprefix(INDEX_MARK))]
    for entry in entries:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.path or not path.parts:
            raise UserError(
                f"the cluster names a file outside of the study's folder: {entry.path!r}; nothing was fetched"
            )
    return entries


def read_pieces(log: str, wanted: list[Piece]) -> list[bytes]:
    """The content of ``wanted``, in their order. Raises UserError if one is missing or not whole."""
    found: dict[int, bytes] = {}
    for line in log.splitlines():
        if line.startswith(PIECE_MARK):
            number, _, content = line.removeprefix(PIECE_MARK).partition(" ")
            try:
                found[int(number)] = base64.b64decode(content, validate=True)
            except (ValueError, binascii.Error) as error:
                raise UserError("a piece of a file arrived damaged; fetch again, what is whole is kept") from error
    if any(len(found.get(number, b"")) != piece.length for number, piece in enumerate(wanted)):
        raise UserError("pieces of files did not arrive; fetch again, what is whole is kept")
    return [found[number] for number in range(len(wanted))]
