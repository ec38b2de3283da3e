"""The files of a data set, in a plain layout that does not depend on where they lie on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from cluster.errors import UserError
from cluster.package import Source

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SPLITS = ("train", "val", "test")


def data_files(path: Path) -> tuple[str, dict[str, Source]]:
    """What a study should name as its data, ``.`` for the folder itself, and the files in that folder by their path.

    A detection set (``data.yaml``) gets ``<split>/images`` and ``<split>/labels``, with the images in their order and
    numbered; a classified one keeps ``<split>/<class>/``.

    Raises:
        UserError: there is no such data set.
    """
    if path.is_dir():
        return ".", _classified(path)
    if not path.is_file():
        raise UserError(f"data: there is no {path} on this machine")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"data: {path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"data: {path} is no Ultralytics data file: it needs train, val and names")
    return "data.yaml", _detection(path, cast(dict[str, Any], content))


def _classified(folder: Path) -> dict[str, Source]:
    places = [folder / split for split in SPLITS if (folder / split).is_dir()]
    images = [file for place in places for file in _images_below(place)]
    if not images:
        raise UserError(f"data: {folder} has no train/<class>/ with images")
    return {str(file.relative_to(folder)): file for file in images}


def _detection(path: Path, content: dict[str, Any]) -> dict[str, Source]:
    root = (path.parent / str(content.get("path") or ".")).resolve()
    splits = [split for split in SPLITS if content.get(split)]
    found: dict[str, Source] = {}
    for split in splits:
        for index, image in enumerate(_images(root, content[split], f"data: {path}: {split}")):
            name = f"{index:07d}_{image.name}"
            found[f"{split}/images/{name}"] = image
            label = _label(image)
            if label.is_file():
                found[f"{split}/labels/{Path(name).stem}.txt"] = label
    plain = {key: value for key, value in content.items() if key not in {"path", "download", *SPLITS}}
    plain |= {split: f"{split}/images" for split in splits}
    found["data.yaml"] = yaml.safe_dump(plain, sort_keys=False).encode()
    return found


def _images(root: Path, entry: Any, where: str) -> list[Path]:
    """The images of a split, sorted: those below a folder or in a list, or of several of these."""
    found: list[Path] = []
    for item in cast(list[Any], entry) if isinstance(entry, list) else [entry]:
        place = root / str(item)
        if place.is_dir():
            found += _images_below(place)
        elif place.suffix == ".txt" and place.is_file():
            lines = place.read_text(encoding="utf-8").split("\n")
            found += [place.parent / line.strip() for line in lines if line.strip()]
        else:
            raise UserError(f"{where}: there is no {place}")
    if lost := next((file for file in found if not file.is_file()), None):
        raise UserError(f"{where}: there is no {lost}")
    return sorted(found)


def _images_below(place: Path) -> list[Path]:
    return [file for file in sorted(place.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]


def _label(image: Path) -> Path:
    """Where Ultralytics looks for the labels: the last ``images`` in the path is ``labels`` there."""
    before, images, after = str(image).rpartition("/images/")
    return Path(f"{before}/labels/{after}" if images else after).with_suffix(".txt")
