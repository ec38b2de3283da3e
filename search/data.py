"""The study's own view of a data set: links to the user's files under paths that nobody else writes beside.

Ultralytics writes label caches next to the images. Parallel trials, or a data set that is read-only, must not
fight over those, so a study gets a folder of links with caches of its own.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from search.errors import UserError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A detection data set in Ultralytics' layout, checked: class names and the image files of each split."""

    source: Path
    names: tuple[str, ...]
    images: dict[str, tuple[Path, ...]]


def read_data(path: Path) -> DataSet:
    """Reads a ``data.yaml`` and finds its images; relative paths are relative to that file.

    Raises:
        UserError: the file or a split is missing, or has no images; says which and where it looked.
    """
    if not path.is_file():
        raise UserError(f"data: there is no file {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"data: {path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content.get("names"):
        raise UserError(f"data: {path} is no Ultralytics data file: it needs train, val and names")
    names = _names(content["names"], path)
    root = (path.parent / str(content.get("path") or ".")).resolve()
    images: dict[str, tuple[Path, ...]] = {}
    for split in SPLITS:
        if content.get(split):
            images[split] = _images(root, content[split], f"data: {path}: {split}")
        elif split != "test":
            raise UserError(f"data: {path} has no {split} split; train and val are both needed")
    return DataSet(source=path.resolve(), names=names, images=images)


def make_view(data: DataSet, folder: Path) -> Path:
    """Makes (or finds, finished) the view of ``data`` in ``folder`` and returns its ``data.yaml``.

    Raises:
        UserError: none of the images of a split can be read.
    """
    folder = folder.resolve()
    manifest = folder / "data.yaml"
    if manifest.is_file():
        return manifest
    content: dict[str, Any] = {"path": str(folder), "names": dict(enumerate(data.names))}
    for split, images in data.images.items():
        links = [_link(image, index, folder, split) for index, image in enumerate(images)]
        (folder / f"{split}.txt").write_text("\n".join(map(str, links)) + "\n", encoding="utf-8")
        content[split] = f"{split}.txt"
        try:  # scans the labels once, for all trials
            _dataset(content, folder / f"{split}.txt", 32, augment=False)
        except RuntimeError as error:
            raise UserError(f"data: {data.source}: {split}: {error}") from error
    temporary = folder / "data.yaml.tmp"
    temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    temporary.replace(manifest)
    return manifest


def sample_batches(view: Path, *, image_size: int, count: int, batch: int, seed: int) -> list[dict[str, Any]]:
    """``count`` training batches of ``batch`` images, as they are (no augmentation), drawn by ``seed``."""
    dataset, order = _train_set(view, image_size, seed)
    groups = [order[start : start + batch] for start in range(0, min(count * batch, len(order)), batch)]
    batches = [dataset.collate_fn([dataset[index] for index in group]) for group in groups]
    return [{**content, "img": content["img"].float() / 255} for content in batches]


def calibration_images(view: Path, *, image_size: int, count: int, seed: int) -> list[np.ndarray]:
    """``count`` training images drawn by ``seed``, each (1, 3, image_size, image_size) float32 in [0, 1]."""
    dataset, order = _train_set(view, image_size, seed)
    return [dataset[index]["img"].numpy()[None].astype(np.float32) / 255 for index in order[:count]]


def _train_set(view: Path, image_size: int, seed: int) -> tuple[Any, list[int]]:
    content = yaml.safe_load(view.read_text(encoding="utf-8"))
    dataset = _dataset(content, view.parent / content["train"], image_size, augment=False)
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    return dataset, order


def _dataset(content: dict[str, Any], images: Path, image_size: int, *, augment: bool) -> Any:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    names = content["names"]
    return YOLODataset(
        img_path=str(images),
        imgsz=image_size,
        augment=augment,
        hyp=get_cfg(),
        rect=False,
        data={"names": names, "nc": len(names), "channels": 3},
        task="detect",
        prefix="",
    )


def _names(content: Any, path: Path) -> tuple[str, ...]:
    """Class names in the order of the classes, from a list or from a mapping of their numbers."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        raise UserError(f"data: {path}: names must be a list or a mapping of class names, got {content!r}")
    names = {str(number): str(name) for number, name in content.items()}
    numbers = [str(number) for number in range(len(content))]
    if set(names) != set(numbers):
        raise UserError(f"data: {path}: names must number the classes from 0, without a gap; got {list(content)}")
    return tuple(names[number] for number in numbers)


def _images(root: Path, entry: Any, where: str) -> tuple[Path, ...]:
    found: list[Path] = []
    for item in entry if isinstance(entry, list) else [entry]:
        place = root / str(item)
        if place.is_dir():
            found += [file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
        elif place.suffix == ".txt" and place.is_file():
            lines = place.read_text(encoding="utf-8").split("\n")
            listed = [place.parent / line.strip() for line in lines if line.strip()]
            if missing := next((file for file in listed if not file.is_file()), None):
                raise UserError(f"{where}: {place} lists {missing}, which is not there")
            found += listed
        else:
            raise UserError(f"{where}: there is no {place}")
    if not found:
        raise UserError(f"{where}: no images in {entry}; known endings are {', '.join(sorted(IMAGE_SUFFIXES))}")
    return tuple(sorted(found))


def _link(image: Path, index: int, folder: Path, split: str) -> Path:
    """A link to ``image`` and one to its labels, under a name that no other image of the split has."""
    from ultralytics.data.utils import img2label_paths

    label = Path(img2label_paths([str(image)])[0])
    link = folder / "images" / split / f"{index:07d}_{image.name}"
    label_link = folder / "labels" / split / f"{link.stem}.txt"
    for target, place in ((image, link), (label, label_link)):
        # A link that is there already is from a view that was cut off, or a JPEG that Ultralytics mended in its place.
        if target.exists() and not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target.resolve())
    return link
