"""The pictures that a model is timed on from end to end, as a camera gives them: (H, W, 3) bytes, blue first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.errors import UserError
from search.tasks.kind import IMAGE_SUFFIXES

CAMERA = (720, 1280)  # height and width of the picture that is made up
MOST = 10


def pictures(folder: Path | None) -> list[NDArray[np.uint8]]:
    """Ten of a folder's images, evenly spread over their names, or all of fewer; without a folder, one made up.

    Raises:
        UserError: no images in the folder, or one that cannot be read.
    """
    if folder is None:
        return [camera_picture()]
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(
            f"--images {folder}: there are no images; known endings are {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    chosen = {round(place) for place in np.linspace(0, len(files) - 1, MOST)}
    return [_read(files[number]) for number in sorted(chosen)]


def camera_picture(seed: int = 0) -> NDArray[np.uint8]:
    """A picture of a camera's size, made up of coarse and fine noise: (720, 1280, 3)."""
    height, width = CAMERA
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (height // 40, width // 40, 3)).repeat(40, axis=0).repeat(40, axis=1)
    return (coarse + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def _read(file: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as image:
            return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    except (OSError, ImportError) as error:  # Ultralytics, where it is imported, has Pillow ask for a package
        raise UserError(f"--images: {file} cannot be read: {error}") from error
