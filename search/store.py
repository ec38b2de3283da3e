"""The truth of a study: ``records.jsonl`` and ``started.jsonl``, appended whole lines at a time, and read back.

Only the driver writes. A line is on the disk before the driver goes on, so a kill loses at most the trial in
flight. A torn last line, from a kill in the middle of a write, is not read, and cut off before the next is written.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from search.errors import UserError
from search.record import BASELINE, Record
from spaces.recipe import Recipe


class Started(BaseModel):
    """A trial that was handed out: the recipe that it was asked for, and when, in seconds since 1970."""

    recipe: Recipe
    at: float | None = None


class Records:
    """The records of one study, in memory. ``baseline`` is kept apart from what the search made."""

    def __init__(self, records: Iterable[Record] = (), started: Iterable[Started] = ()) -> None:
        self.records: dict[str, Record] = {record.id: record for record in records}
        self.started: list[Started] = list(started)

    @property
    def baseline(self) -> Record | None:
        """The uncompressed model's record, once it was measured."""
        return self.records.get(BASELINE)

    @property
    def searched(self) -> list[Record]:
        """Every record but the baseline's, oldest first."""
        return [record for record in self.records.values() if record.id != BASELINE]

    def append(self, records: Iterable[Record]) -> None:
        """Adds records that are not there yet; a known id is left as it is."""
        self.records |= {record.id: record for record in records if record.id not in self.records}

    def start(self, recipe: Recipe) -> None:
        """Notes that a trial of ``recipe`` was handed out."""
        self.started.append(Started(recipe=recipe))

    def trials(self) -> int:
        """How many trials ended: the number of distinct trunks among the searched records."""
        return len({record.recipe.trunk_id for record in self.searched})

    def states(self) -> dict[str, int]:
        """How many searched records ended in each state."""
        return dict(Counter(record.state for record in self.searched))


class Store(Records):
    """The records of one study folder: what is added is on the disk before the call returns."""

    def __init__(self, folder: Path) -> None:
        self._records_path = folder / "records.jsonl"
        self._started_path = folder / "started.jsonl"
        super().__init__(
            (Record.model_validate_json(line) for line in whole_lines(self._records_path)),
            (Started.model_validate_json(line) for line in whole_lines(self._started_path)),
        )

    def append(self, records: Iterable[Record]) -> None:
        """Adds records that are not there yet, with the time, all in one write; a known id is left as it is."""
        now = time.time()
        new = [r.model_copy(update={"at": r.at or now}) for r in records if r.id not in self.records]
        append_lines(self._records_path, [as_line(record) for record in new])
        super().append(new)

    def start(self, recipe: Recipe) -> None:
        """Notes that a trial of ``recipe`` was handed out."""
        self.started.append(Started(recipe=recipe, at=time.time()))
        append_lines(self._started_path, [as_line(self.started[-1])])


class InUseError(UserError):
    """A folder that another process is writing to."""


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Holds the study folder for this process; the lock goes with the process, so a kill frees it.

    Raises:
        InUseError: another process is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(f"{folder} is in use by another search; wait for it or choose another folder") from error
        yield


def write_atomically(path: Path, text: str) -> None:
    """Puts ``text`` at ``path`` so that readers see the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def as_line(content: BaseModel) -> str:
    """One line of JSON. Pydantic's own would turn NaN into null, which is not read back as a number."""
    return json.dumps(content.model_dump(mode="json"))


def append_lines(path: Path, lines: list[str]) -> None:
    """Adds lines to the file, all in one write; they are on the disk before this returns."""
    if not lines:
        return
    with path.open("a+b") as file:
        file.seek(-1 if file.tell() else 0, os.SEEK_END)
        if file.read() not in {b"", b"\n"}:
            file.truncate(path.read_bytes().rfind(b"\n") + 1)  # cuts off a torn last line
        file.write("".join(line + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def whole_lines(path: Path) -> list[str]:
    """The whole lines of the file. It is left as it is: the driver may be writing while another process reads."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    # Not splitlines, which also breaks at characters that JSON leaves as they are, such as U+2028.
    return content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
