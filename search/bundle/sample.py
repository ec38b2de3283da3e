"""The picture of a bundle: one of the study's own, on which the model finds something."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from search.errors import UserError
from search.measure.end_to_end import Chain
from search.measure.pictures import camera_picture
from search.tasks.kind import IMAGE_SUFFIXES, SPLITS

LARGEST = 1280  # pixels of the longer side
TRIED = 10


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A picture, the answer to it, and in words where it is from."""

    image: Image.Image
    answer: NDArray[np.float32]
    source: str


def choose_sample(chain: Chain, given: Path | None, images: dict[str, list[Path]]) -> Chosen:
    """``given``, or the first of ten validation images with an answer; without any, one that is made up.

    It becomes a PNG, which every library decodes to the same pixels and which says nothing of the place and the camera.

    Raises:
        UserError: ``given`` cannot be read.
    """
    if given is not None:
        return _answered(chain, read_image(given), "the one that was given when the bundle was made")
    own = images.get("val", [])
    tried = (
        [own[place] for place in sorted({round(place) for place in np.linspace(0, len(own) - 1, TRIED)})] if own else []
    )
    for file in tried:
        chosen = _answered(chain, read_image(file), "an image of the study's validation split")
        if len(chosen.answer):
            return chosen
    return _answered(chain, Image.fromarray(camera_picture()[..., ::-1]), "noise that was made up")


def view_images(folder: Path) -> dict[str, list[Path]]:
    """The images of each split in a study's view of its data, that are still there; splits without any are left out."""
    view = folder / "data"
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in sorted(view.rglob("*")):
        parts = file.relative_to(view).parts
        split = next((part for part in parts[:2] if part in found), None)  # images/val/… or val/<class>/…
        if split and file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            found[split].append(file)
    return {split: files for split, files in found.items() if files}


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3), blue first."""
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


def _answered(chain: Chain, image: Image.Image, source: str) -> Chosen:
    return Chosen(image=image, answer=chain.answer(pixels(image)).astype(np.float32), source=source)


def read_image(file: Path) -> Image.Image:
    """A picture as it is looked at, in red, green and blue, 1280 pixels long at most. Raises UserError."""
    try:
        with Image.open(file) as image:
            own = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, ImportError, Image.DecompressionBombError) as error:
        raise UserError(f"the sample picture {file} cannot be read: {error}; give another with --sample") from error
    own.thumbnail((LARGEST, LARGEST))
    return Image.fromarray(np.asarray(own))  # pixels alone, without what else the file said
