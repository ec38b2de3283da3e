"""The study's own view of a data set: links to the user's files under paths that nobody else writes beside.

Ultralytics writes label caches next to the images. Parallel trials, or a data set that is read-only, must not
fight over those, so a study gets a folder of links with caches of its own. What the files look like is the task's.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from search.errors import UserError
from search.tasks.kind import IMAGE_SUFFIXES, SPLITS, Batch, DataSet
from search.tasks.table import KINDS, kind_of_path, view_content

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "DataSet",
    "calibration_images",
    "data_digest",
    "make_view",
    "read_data",
    "sample_batches",
]


def read_data(path: Path) -> DataSet:
    """The data set at ``path``: a ``data.yaml`` of Ultralytics for detection, a folder for classification.

    Raises:
        UserError: the file or a split is missing, or has no images; says which and where it looked.
    """
    return kind_of_path(path).read(path)


def make_view(data: DataSet, folder: Path) -> Path:
    """Makes (or finds, finished) the view of ``data`` in ``folder`` and returns its ``data.yaml``.

    Raises:
        UserError: none of the images of a split can be read.
    """
    folder, kind = folder.resolve(), KINDS[data.task]
    manifest = folder / "data.yaml"
    if manifest.is_file():
        return manifest
    content: dict[str, Any] = {"path": str(folder), "task": data.task, "names": dict(enumerate(data.names))}
    for split in data.images:
        content[split] = kind.link(data, split, folder)
        try:  # scans the files once, for all trials
            kind.dataset(content, split, 32)
        except RuntimeError as error:
            raise UserError(f"data: {data.source}: {split}: {error}") from error
    temporary = folder / "data.yaml.tmp"
    temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    temporary.replace(manifest)
    return manifest


def data_digest(view: Path) -> str:
    """What tells data sets apart: class names, and of every split the images' names and sizes and the labels' content.

    The same files give the same digest wherever they are. Images are not read.
    """
    content = view_content(view)
    digest = hashlib.sha256(json.dumps([content["names"], sorted(set(content) & set(SPLITS))]).encode())
    for file in sorted(path for path in view.parent.rglob("*") if path.suffix.lower() in {".txt", *IMAGE_SUFFIXES}):
        name = file.relative_to(view.parent).as_posix()
        if file.suffix == ".txt" and file.parent != view.parent:
            digest.update(f"{name}\0".encode() + file.read_bytes())
        elif file.suffix != ".txt":
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
    return digest.hexdigest()[:16]


def sample_batches(view: Path, *, image_size: int, count: int, batch: int, seed: int) -> list[Batch]:
    """``count`` training batches of ``batch`` images, as they are (no augmentation), drawn by ``seed``."""
    get, order = _train_set(view, image_size, seed)
    return [get(order[start : start + batch]) for start in range(0, min(count * batch, len(order)), batch)]


def calibration_images(view: Path, *, image_size: int, count: int, seed: int) -> list[np.ndarray]:
    """``count`` training images drawn by ``seed``, each (1, 3, image_size, image_size) float32 in [0, 1]."""
    get, order = _train_set(view, image_size, seed)
    return [get([index])["img"].numpy() for index in order[:count]]


def _train_set(view: Path, image_size: int, seed: int) -> tuple[Any, list[int]]:
    """What gives a batch of training images by their indices, and these in random order."""
    content = view_content(view)
    kind = KINDS[content.get("task", "detect")]
    dataset = kind.dataset(content, "train", image_size)
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    return lambda indices: kind.batch(dataset, indices), order
