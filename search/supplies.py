"""What trials need on a machine that does not see the study folder, as one value to send there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from search.errors import FaultError
from search.measure.parcel import Parcel, pack

LIMIT = 2 * 10**9  # bytes; they pass through memory, of the driver's machine and of each that gets them
MODEL, DATA, BASELINE = "model", "data", "baseline-"  # what is packed; a baseline's file for each format


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """The baseline's checkpoint and files, and the view of the data with what its links lead to.

    ``times`` are those of change of the data's files, in ns: the names of cached trainings depend on them.
    """

    parcels: dict[str, Parcel]
    times: dict[str, int]

    @property
    def digest(self) -> str:
        """Names the content."""
        content = repr([(name, parcel.sha256) for name, parcel in sorted(self.parcels.items())])
        return hashlib.sha256((content + repr(sorted(self.times.items()))).encode()).hexdigest()[:20]


def pack_supplies(sources: dict[str, Path], limit: int = LIMIT) -> Supplies:
    """Reads the files.

    Raises:
        FaultError: they are larger than ``limit``.
    """
    files = {path: list(_files(path)) for path in sources.values()}
    size = sum(file.stat().st_size for found in files.values() for file in found)
    if size > limit:
        raise FaultError(
            f"data and model are {size / 1e9:.1f} GB, and machines that do not see the study folder are sent at most "
            f"{limit / 1e9:g} GB; put the study and its data on a folder that all nodes share, or keep trials to the "
            "nodes that see it with resources.custom"
        )
    data = sources[DATA]
    times = {file.relative_to(data).as_posix(): file.stat().st_mtime_ns for file in files[data]}
    return Supplies(parcels={name: pack(path) for name, path in sources.items()}, times=times)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
