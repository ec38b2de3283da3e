"""The folder of this machine in which a study behind a URL is worked on, and what it knows of the URL.

Everything in the product works on a folder. A study behind a URL has one in the user's cache, always the same for the
same URL, or where ``--work`` says. A note in it, ``.url.json``, names the URL, so the folder can be given in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.storage.urls import last_name
from search.store import write_atomically

NOTE = ".url.json"

Stamp = list[int]  # size in bytes, time of the last change in nanoseconds


@dataclass
class Known:
    """What is known of a file: its stamp here and there when both were the same. None there: this folder wrote it."""

    here: Stamp
    there: Stamp | None


@dataclass
class Working:
    """The note of a working folder: its URL, its own name, and what it knows of each file by path."""

    folder: Path
    url: str
    writer: str
    files: dict[str, Known] = field(default_factory=dict)

    def save(self) -> None:
        """Writes the note."""
        files = {name: [known.here, known.there] for name, known in self.files.items()}
        content: dict[str, Any] = {"url": self.url, "writer": self.writer, "files": files}
        write_atomically(self.folder / NOTE, json.dumps(content) + "\n")


def working_folder(url: str, work: Path | None = None) -> Path:
    """The working folder of ``url``, made if it is missing: ``work``, or one in the user's cache.

    Raises:
        UserError: the folder has something else in it.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolo-front" / "studies"
    name = f"{last_name(url)}-{hashlib.sha256(url.encode()).hexdigest()[:10]}"
    folder = work or root / name
    if (own := url_of(folder)) == url:
        return folder
    if own is not None:
        raise UserError(f"{folder} is the working folder of {own}; choose another one for {url}")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty, and no working folder of {url}; choose another one")
    folder.mkdir(parents=True, exist_ok=True)
    Working(folder=folder, url=url, writer=uuid.uuid4().hex).save()
    return folder


def url_of(folder: Path) -> str | None:
    """The URL that ``folder`` is the working folder of, if it is one."""
    note = folder / NOTE
    return json.loads(note.read_text(encoding="utf-8"))["url"] if note.is_file() else None


def read_working(folder: Path) -> Working:
    """The note of a working folder."""
    content = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    files = {name: Known(here=here, there=there) for name, (here, there) in content["files"].items()}
    return Working(folder=folder, url=content["url"], writer=content["writer"], files=files)


def stamp(path: Path) -> Stamp | None:
    """Size and time of the last change of a file; None if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
