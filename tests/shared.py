"""What takes long to make, made once for all workers of pytest-xdist."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A copy, this worker's own, of the folder that ``make`` fills: the first worker does, the others wait."""
    own = factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / f"shared-{name}"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "whole").exists():
            shutil.rmtree(place / "made", ignore_errors=True)
            (place / "made").mkdir()
            make(place / "made")
            (place / "whole").touch()
    return shutil.copytree(place / "made", factory.mktemp(name) / "copy", symlinks=True)
