"""Where engines stay that take minutes to build: a folder for each file, so that every process builds it once.

A measurement loads its two files again and again, accuracy is measured in another process than latency, and a child
that was left after its time must not start all over.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from functools import lru_cache
from pathlib import Path

from search.errors import MeasurementError

KEPT = 100  # engines, those used last; one of a usual model has some ten MB


def plan_folder(path: Path, *facts: str) -> Path:
    """The folder for what is built of the content of the file at ``path``, below ``~/.cache/yolo-front/plans``.

    Args:
        path: of the model.
        facts: what an engine depends on besides the file: the builder with its version and settings, the GPU.

    Raises:
        MeasurementError: it cannot be made.
    """
    root = Path.home() / ".cache" / "yolo-front" / "plans"
    folder = root / hashlib.sha256("\n".join([_content(path, path.stat().st_mtime_ns), *facts]).encode()).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for old in sorted(root.iterdir(), key=_used)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise MeasurementError(f"cannot keep the engine of {path} in {root}: {error}; make room there") from error
    return folder


@lru_cache(maxsize=4)  # the files of a measurement
def _content(path: Path, changed_ns: int) -> str:
    """The SHA-256 of the file, which was changed at ``changed_ns``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _used(folder: Path) -> float:
    """When the folder was used last; one that another process has just removed was used the longest ago."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
