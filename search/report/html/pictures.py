"""Validation images with the boxes that the baseline and the picks find on them, for detection."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from search.errors import MeasurementError
from search.measure.end_to_end import open_chain
from search.runtimes.session import Runtime
from search.tasks.kind import IMAGE_SUFFIXES
from search.tasks.table import view_content

IMAGES = 4
SIDE = 420  # pixels of the longer side in the report
QUALITY = 72


def pictures(folder: Path, models: dict[str, str]) -> dict[str, Any]:
    """Images evenly spread over the validation split, with the boxes of each model, or ``why`` there are none.

    Boxes are left, top, width, height as shares of the picture, then the score (None for a label) and the class.
    They are those of Ultralytics' predictor at its defaults, from the exported file through ONNX Runtime.

    Args:
        folder: of the study.
        models: the ONNX files, relative to ``folder``, by name.
    """
    view = folder / "data" / "data.yaml"
    if not view.is_file():
        return {"why": "the study's data is not beside this report"}
    content = view_content(view)
    if content.get("task", "detect") != "detect":
        return {"why": "only detection has boxes"}
    files = sorted(
        path for path in (folder / "data" / "images" / "val").glob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )  # fmt: skip
    if not files:
        return {"why": "the validation images are not where the study linked to them"}
    absent = [path for path in models.values() if not (folder / path).is_file()]
    if absent:
        return {"why": f"{absent[0]} is not there"}
    chosen = [files[place] for place in sorted({round(p) for p in np.linspace(0, len(files) - 1, IMAGES)})]
    try:
        boxes = {name: _found(folder / path, chosen) for name, path in models.items()}
    except MeasurementError as error:
        return {"why": str(error)}
    names = content["names"]
    return {
        "classes": list(names.values()) if isinstance(names, dict) else list(names),
        "models": list(models),
        "images": [
            {**_embedded(file), "labels": _labels(file, folder), "boxes": [boxes[name][place] for name in models]}
            for place, file in enumerate(chosen)
        ],
    }


def _found(path: Path, files: Sequence[Path]) -> list[list[list[float]]]:
    """What the model at ``path`` finds on each file."""
    chain = open_chain(path, Runtime())
    found = list[list[list[float]]]()
    for file in files:
        with Image.open(file) as image:
            picture = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
        height, width = picture.shape[:2]
        found.append(
            [
                [*_shares((left, top, right, bottom), width, height), round(score, 3), int(kind)]
                for left, top, right, bottom, score, kind in chain.answer(picture).tolist()
            ]
        )
    return found


def _labels(file: Path, folder: Path) -> list[list[float | None]]:
    """The boxes that people drew, from Ultralytics' text file: class, centre and size as shares of the picture."""
    path = folder / "data" / "labels" / "val" / f"{file.stem}.txt"
    if not path.is_file():
        return []
    rows = [[float(cell) for cell in line.split()] for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [
        [round(x - width / 2, 4), round(y - height / 2, 4), round(width, 4), round(height, 4), None, int(kind)]
        for kind, x, y, width, height in (row for row in rows if len(row) == 5)
    ]


def _shares(corners: Sequence[float], width: int, height: int) -> list[float]:
    left, top, right, bottom = corners
    return [round(left / width, 4), round(top / height, 4),
            round((right - left) / width, 4), round((bottom - top) / height, 4)]  # fmt: skip


def _embedded(file: Path) -> dict[str, Any]:
    """A small JPEG in a data URI, without what the camera wrote beside the picture."""
    with Image.open(file) as image:
        small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    text = base64.b64encode(buffer.getvalue()).decode()
    return {"name": file.name, "src": f"data:image/jpeg;base64,{text}", "width": small.width, "height": small.height}
