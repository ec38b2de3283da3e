"""Sends what changed in a working folder to its URL: artifacts, then the records that name them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from search.storage.location import Location
from search.storage.logs import LOGS, GrowingLog
from search.storage.pull import LOCAL, Parts
from search.storage.working import Known, Stamp, Working, stamp

DERIVED = ("optuna.log",)  # made anew from the records on any machine
UNFINISHED = ("tmp",)  # how names of temporary folders begin
SAVE = 30.0  # seconds between two writings of the note while the study runs


class Push:
    """What is sent from a working folder.

    Args:
        working: the folder; its note says what need not be sent.
        location: its URL.
        parts: the logs there, part by part.
    """

    def __init__(self, working: Working, location: Location, parts: Parts) -> None:
        self._working, self._location = working, location
        self._logs = [GrowingLog(location, working.folder / name, parts[name]) for name in LOGS]
        self._looked: dict[str, int] = {}  # folders of artifacts that were sent, and when they had changed
        self._saved = time.monotonic()

    def signature(self) -> list[tuple[str, Stamp | None]]:
        """Changes when something was finished: a file of the study was written, above all ``records.jsonl``."""
        names = sorted(entry.name for entry in _entries(self._working.folder))
        return [(name, stamp(self._working.folder / name)) for name in names if name != "live.json"]

    def send(self) -> None:
        """Sends what is new.

        The logs are looked at first and sent last: what they name was written before them, and is sent before them.

        Raises:
            OSError: the place does not answer, or refuses; what was sent is noted.
        """
        snapshots = [log.snapshot() for log in self._logs]
        for path in self._changed():
            name, here = path.relative_to(self._working.folder).as_posix(), stamp(path)
            if here is not None:
                self._location.upload(path, name)
                self._working.files[name] = Known(here=here, there=None)
        for log, parts in zip(self._logs, snapshots, strict=True):
            log.send(parts)
        if time.monotonic() - self._saved > SAVE:
            self.save()

    def save(self) -> None:
        """Writes the note of the working folder."""
        self._working.save()
        self._saved = time.monotonic()

    def _changed(self) -> Iterator[Path]:
        """The files that are not there as they are here, those of ``artifacts`` and ``baseline`` first."""
        folder = self._working.folder
        for place in sorted(Path(entry) for entry in _entries(folder) if entry.is_dir()):
            if place.name == "artifacts":
                yield from self._changed_artifacts(place)
            else:
                yield from self._new(_files(place))
        yield from self._new(Path(e) for e in _entries(folder) if e.is_file() and e.name not in LOGS)

    def _changed_artifacts(self, place: Path) -> Iterator[Path]:
        """Of thousands of folders only those are looked into that changed since they were sent."""
        for entry in _entries(place):
            changed = entry.stat().st_mtime_ns
            if entry.is_dir() and self._looked.get(entry.name) != changed:
                yield from self._new(_files(Path(entry)))
                self._looked[entry.name] = changed  # not before all of it was sent

    def _new(self, files: Iterator[Path]) -> Iterator[Path]:
        for path in files:
            known = self._working.files.get(path.relative_to(self._working.folder).as_posix())
            if known is None or known.here != stamp(path):
                yield path


def _travels(entry: os.DirEntry[str]) -> bool:
    """Whether what has this name belongs to the study, wherever it is."""
    name = entry.name
    hidden = name.startswith((".", *UNFINISHED)) or name.endswith(".tmp")
    return not (hidden or name in LOCAL or name.startswith(DERIVED) or entry.is_symlink())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if _travels(entry)]


def _files(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        yield from _files(Path(entry)) if entry.is_dir() else [Path(entry)]
