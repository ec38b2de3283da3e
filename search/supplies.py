"""What trials need on a machine that does not see the study folder: sent there once, and unpacked under its digest."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from search.cache import STAGES, StageCache
from search.errors import FaultError
from search.measure.parcel import Parcel, pack
from search.tasks.kind import SPLITS
from search.tasks.table import kind_of_view, view_content
from search.workplace import Workplace

LIMIT = 2 * 10**9  # bytes; they pass through memory, of the driver's machine and of each that gets them
KEPT = 7 * 24 * 3600.0  # seconds that supplies which nobody uses stay on a machine
MODEL, DATA, BASELINE = "model", "data", "baseline-"


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


def sources_of(place: Workplace) -> dict[str, Path]:
    """Where the driver has what trials need."""
    files = {f"{BASELINE}{form}": path for form, path in place.baselines.items()}
    return {MODEL: place.inputs.baseline, DATA: place.inputs.data.parent, **files}


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


def settle(place: Workplace, digest: str, fetch: Callable[[], Supplies], root: Path | None = None) -> Workplace:
    """``place`` on this machine, which does not see its folder: fetched unless it is here.

    Args:
        place: the driver's.
        digest: of the supplies.
        fetch: gets them; called by one process of this machine alone.
        root: where the folders of supplies are.
    """
    root = root or Path(tempfile.gettempdir()) / f"yolo-front-{os.getuid()}" / "places"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / digest
    with (root / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _drop_old(root)
            _unpack(fetch(), folder)
        os.utime(folder)
    inputs, cache = place.inputs, place.inputs.cache
    if cache is not None and (cache.folder.is_relative_to(place.folder) or not cache.folder.is_dir()):
        cache = StageCache(folder / "cache" / STAGES)
    model, data = (next((folder / name).iterdir()) for name in (MODEL, DATA))
    return replace(
        place,
        folder=folder,
        token="",
        inputs=replace(inputs, baseline=model, data=data / inputs.data.name, cache=cache),
        baselines={form: next((folder / f"{BASELINE}{form}").iterdir()) for form in place.baselines},
    )


def _unpack(supplies: Supplies, folder: Path) -> None:
    """Writes everything into ``folder``, which appears whole."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        (new / "cache").mkdir(parents=True)
        for name, parcel in supplies.parcels.items():
            (new / name).mkdir()
            path = parcel.unpack(new / name)
            if name == DATA:
                for file, when in supplies.times.items():
                    os.utime(path / file, ns=(when, when))
                _move_view(path / "data.yaml", folder / DATA / parcel.name)
        os.replace(new, folder)
    view = next((folder / DATA).iterdir()) / "data.yaml"
    content = view_content(view)
    for split in set(content) & set(SPLITS):
        kind_of_view(view).dataset(content, split, 32)  # scans the files once, for all trials here


def _move_view(manifest: Path, folder: Path) -> None:
    """Has a view's ``data.yaml`` say that it is in ``folder``; its lists of images are relative."""
    content = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    manifest.write_text(yaml.safe_dump({**content, "path": str(folder)}, sort_keys=False), encoding="utf-8")


def _drop_old(root: Path) -> None:
    for entry in root.iterdir():
        if entry.is_dir() and time.time() - entry.stat().st_mtime > KEPT:
            shutil.rmtree(entry, ignore_errors=True)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
