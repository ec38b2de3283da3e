"""Results of stages, kept under names that follow from everything they depend on.

One folder may serve the trials of a study, other studies, and other machines through a shared file system: a file
appears whole or not at all, the same name always means the same content, and whoever finds nothing makes it again.
Behind it there may be a URL for machines that share no file system: what is not in the folder is looked for there, and
what is made is put there too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from search.storage.shared import SharedResults

Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parent.parent
CODE = ("search/stages", "search/tasks", "search/pipeline.py", "search/data.py", "spaces")  # what makes the results
PACKAGES = ("numpy", "torch", "torch-pruning", "torchvision", "ultralytics")
STAGES = "stages"  # of a study's own cache, unless it names another place
STATE_SECONDS = 60.0  # between two states of a training that are sent to a URL, at least
STATE_SHARE = 0.05  # of the time, at most, that sending them may take
LEFT_OVER = 24 * 3600.0  # seconds, after which a file that somebody began to write belongs to nobody


class StageCache:
    """A folder of results, of which those that were not used for longest go when there are too many.

    Args:
        folder: made if it is missing.
        max_bytes: how much may stay after a result was added; the newest one always does.
        url: of what is shared with other machines, if anything is. There nothing is removed but finished trainings'
            states.
    """

    def __init__(self, folder: Path, *, max_bytes: int = 4 * 10**9, url: str | None = None) -> None:
        self.folder, self._max_bytes, self._url = folder, max_bytes, url
        self._shared = None if url is None else SharedResults(url)
        self._share_again = 0.0

    def moved(self, folder: Path) -> StageCache:
        """The same on another machine, whose own results are in ``folder``."""
        return StageCache(folder, max_bytes=self._max_bytes, url=self._url)

    def get(
        self,
        name: str,
        make: Callable[[], Result],
        *,
        load: Callable[[Path], Result],
        save: Callable[[Result, Path], None],
    ) -> Result:
        """The result called ``name``: loaded if it is here, else made and saved."""
        found = self.find(name, load)
        if found is None:
            found = make()
            self.put(name, lambda path: save(found, path))
        return found

    def find(self, name: str, load: Callable[[Path], Result]) -> Result | None:
        """What ``load`` reads from the result called ``name``, or None if there is none."""
        path = self.bring(name)
        try:
            result = load(path)
            os.utime(path)  # used just now
        except FileNotFoundError:  # never made, or removed by another study a moment ago
            return None
        return result

    def bring(self, name: str) -> Path:
        """Where the result called ``name`` is, if there is one here or behind the URL, from where it is brought."""
        path = self.path(name)
        if self._shared is not None and not path.is_file():
            self._shared.fetch(name, path)
        return path

    def __contains__(self, name: str) -> bool:
        """Whether there is a result called ``name``, here or behind the URL."""
        return self.path(name).is_file() or (self._shared is not None and self._shared.has(name))

    def share_state(self, name: str) -> None:
        """Sends the state called ``name``, which changes, to the URL, if there is one; not so often that it costs."""
        if self._shared is None or time.monotonic() < self._share_again or not self.path(name).is_file():
            return
        began = time.monotonic()
        self._shared.send(self.path(name), name)
        ended = time.monotonic()
        self._share_again = ended + max(STATE_SECONDS, (ended - began) / STATE_SHARE)

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Has ``write`` write the result called ``name``, puts it in its place, and makes room for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f"{name}.", suffix=".tmp")
        os.close(handle)
        try:
            write(Path(temporary))
            os.replace(temporary, self.path(name))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if self._shared is not None:
            self._shared.send(self.path(name), name)
        self._make_room(keep=name)

    def drop(self, name: str) -> None:
        """Removes the result called ``name``, if it is here or behind the URL."""
        self.path(name).unlink(missing_ok=True)
        if self._shared is not None:
            self._shared.drop(name)

    def path(self, name: str) -> Path:
        """Where the result called ``name`` is, or would be."""
        return self.folder / name

    def _make_room(self, keep: str) -> None:
        files: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process makes room too
                if path.is_file():
                    stat = path.stat()
                    files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            unfinished = path.suffix == ".tmp"
            old = time.time() - used > LEFT_OVER
            if (unfinished and old) or (not unfinished and total > self._max_bytes and path.name != keep):
                path.unlink(missing_ok=True)
                total -= size


def stage_name(stage: str, **content: Any) -> str:
    """A name for the result of a stage that depends on ``content`` (JSON-able), on this code and its libraries."""
    everything = json.dumps({"content": content, "code": code_version()}, sort_keys=True)
    return f"{stage}-{hashlib.sha256(everything.encode()).hexdigest()[:20]}"


@lru_cache(maxsize=1)
def code_version() -> str:
    """Names the source text of everything that makes results, and the versions of the libraries."""
    digest = hashlib.sha256(" ".join(f"{name}={metadata.version(name)}" for name in PACKAGES).encode())
    for place in CODE:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
