"""A trial's place on a machine that does not see the study folder: supplies, unpacked once under their digest."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from search.cache import STAGES
from search.supplies import BASELINE, DATA, MODEL, Supplies
from search.tasks.kind import SPLITS
from search.tasks.table import kind_of_view, view_content
from search.workplace import Workplace

KEPT = 7 * 24 * 3600.0  # seconds that supplies which nobody uses stay on a machine


def sources_of(place: Workplace) -> dict[str, Path]:
    """Where the driver has what trials need."""
    files = {f"{BASELINE}{form}": path for form, path in place.baselines.items()}
    return {MODEL: place.inputs.baseline, DATA: place.inputs.data.parent, **files}


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
        cache = cache.moved(folder / "cache" / STAGES)
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
