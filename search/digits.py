"""A small real detection data set: handwritten digits on textured canvases, made offline in a few seconds.

The digits are scikit-learn's 1,797 scans (8x8 px, 10 classes; from UCI's "Optical Recognition of Handwritten
Digits"). The splits use disjoint scans, so validation and test accuracy are those of unseen handwriting.

    from search.digits import make_digits
    make_digits(Path("datasets/digits"))    # -> datasets/digits/data.yaml, in Ultralytics' layout
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from search.errors import UserError

SPLITS = ("train", "val", "test")
N_SOURCES = 1797  # scans in scikit-learn's copy
SOURCE_SHARE = {"train": 0.6, "val": 0.2, "test": 0.2}  # of the scans, not of the canvases
IMAGE_SIZE = 128  # px, canvas side
COUNTS: Mapping[str, int] = {"train": 240, "val": 100, "test": 100}  # canvases
DIGITS_PER_CANVAS = (3, 6)  # wanted; fewer when there is no free place left
GLYPH_SIDE = (0.17, 0.36)  # side of the scaled 8x8 scan, as a share of the canvas side
CONTRAST = (45.0, 125.0)  # grey levels between a digit and the mean of the background under it
MAX_OVERLAP = 0.05  # shared area of two boxes, as a share of the smaller one
MANIFEST = "manifest.json"
FILES = (("images", "*.png"), ("labels", "*.txt"))
FORMAT = 1  # raise it when the same arguments would draw other pixels, so that old folders are not reused

Image = NDArray[np.float32]  # (H, W, 3), 0..255, BGR


@dataclass(frozen=True, kw_only=True)
class Box:
    """Ink of one digit in pixels: columns x0 <= x < x1, rows y0 <= y < y1."""

    label: int
    x0: int
    y0: int
    x1: int
    y1: int

    def overlap(self, other: Box) -> float:
        """Shared area as a share of the smaller box's area, 0..1."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        smaller = min((b.x1 - b.x0) * (b.y1 - b.y0) for b in (self, other))
        return max(width, 0) * max(height, 0) / smaller

    def yolo_line(self, image_size: int) -> str:
        """`class x_center y_center width height`, as shares of the canvas side."""
        x, y = (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2
        numbers = (x, y, self.x1 - self.x0, self.y1 - self.y0)
        return " ".join([str(self.label), *(f"{n / image_size:.6f}" for n in numbers)]) + "\n"


def split_indices(seed: int) -> dict[str, list[int]]:
    """Indices into `load_digits()` for each split: disjoint, together all 1,797, each list ascending."""
    order = np.random.default_rng(seed).permutation(N_SOURCES)
    ends = np.round(np.cumsum([SOURCE_SHARE[s] for s in SPLITS]) * N_SOURCES).astype(int)
    return {s: sorted(part.tolist()) for s, part in zip(SPLITS, np.split(order, ends[:-1]), strict=True)}


def background(rng: np.random.Generator, size: int) -> Image:
    """Texture without digits, (size, size, 3): a tinted gradient, noise at two scales and stray strokes."""
    import cv2

    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    slope = (x * np.cos(angle) + y * np.sin(angle))[..., None] * rng.uniform(0, 60, 3)
    canvas = rng.uniform(70, 185) + rng.uniform(-25, 25, 3) + slope
    for sigma, level in ((size / 16, 14.0), (1.0, 7.0)):
        noise = cv2.GaussianBlur(rng.normal(size=(size, size, 3)), (0, 0), sigma)
        canvas += noise / noise.std() * rng.uniform(0.2, 1.0) * level
    canvas = np.ascontiguousarray(canvas, np.float32)
    for _ in range(rng.integers(2, 7)):
        centre, axes = rng.integers(0, size, 2).tolist(), rng.integers(3, size // 3, 2).tolist()
        turn, start, sweep = rng.uniform(0, 360, 3)
        colour = (canvas[centre[1], centre[0]] + rng.uniform(-60, 60, 3)).tolist()
        width = int(rng.integers(1, 4))
        cv2.ellipse(canvas, centre, axes, turn, start, start + sweep / 3, colour, width, cv2.LINE_AA)
    return np.clip(canvas, 0, 255)


def glyph_alpha(scan: NDArray[np.float64], side: int) -> Image:
    """Opacity 0..1 of an 8x8 scan (0..16) scaled to `side` px and cropped to its ink."""
    import cv2

    scaled = cv2.resize((scan / 16).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    # The foot of the ramp is cut to exactly 0: what is outside the box must not be drawn at all.
    ramp = np.clip((scaled - 0.2) / 0.5, 0, 1)
    alpha = np.where(ramp < 0.1, 0, ramp).astype(np.float32)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_digits(
    canvas: Image, scans: NDArray[np.float64], labels: NDArray[np.int64], rng: np.random.Generator
) -> list[Box]:
    """Draw (N, 8, 8) scans into `canvas` at random; one that finds no free place in 20 tries is left out."""
    size, boxes = canvas.shape[0], list[Box]()
    for scan, label in zip(scans, labels, strict=True):
        alpha = glyph_alpha(scan, round(rng.uniform(*GLYPH_SIDE) * size))
        height, width = alpha.shape
        for _ in range(20):
            x, y = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
            box = Box(label=int(label), x0=x, y0=y, x1=x + width, y1=y + height)
            if all(box.overlap(other) <= MAX_OVERLAP for other in boxes):
                _blend(canvas[y : y + height, x : x + width], alpha[..., None], rng)
                boxes.append(box)
                break
    return boxes


def _blend(patch: Image, alpha: Image, rng: np.random.Generator) -> None:
    """Ink `patch` in place, lighter or darker than its mean by a random contrast, with a slight tint."""
    mean, contrast = patch.mean(), rng.uniform(*CONTRAST)
    fits = [sign for sign in (-1, 1) if 0 <= mean + sign * contrast <= 255]
    sign = rng.choice(fits)  # never empty: CONTRAST ends below half the range
    colour = np.clip(mean + sign * contrast + rng.uniform(-20, 20, 3), 0, 255)
    patch += alpha * (colour - patch)


def make_digits(root: Path, *, seed: int = 0, image_size: int = IMAGE_SIZE, counts: Mapping[str, int] = COUNTS) -> Path:
    """Make the data set in `root` (or reuse it) and return the path of its data.yaml.

    The same arguments give byte-identical files. `image_size` is the canvas side in px, `counts` the number
    of canvases for each of train, val and test. `root` appears whole or not at all.

    Raises:
        UserError: the arguments are out of range, or `root` already holds something else.
    """
    if image_size < 64 or set(counts) != set(SPLITS) or min(counts.values()) < 1:
        raise UserError(f"digits: want image_size >= 64, counts >= 1 for {SPLITS}; got {image_size}, {counts}")
    settings = {"format": FORMAT, "seed": seed, "image_size": image_size, "counts": dict(counts)}
    make_whole(root, lambda folder: _write(folder, settings), lambda: _is_complete(root, settings))
    return root / "data.yaml"


def make_whole(root: Path, write: Callable[[Path], None], is_complete: Callable[[], bool]) -> None:
    """Has ``write`` fill a new folder that then appears at ``root``, unless a complete one is there.

    Raises:
        UserError: `root` holds something else.
    """
    if not is_complete():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f"digits: {root} holds other files or settings; remove it or choose another")
        root.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
        try:
            write(building)
            building.chmod(0o755)  # mkdtemp's 0700 would hide the set from other users
            os.replace(building, root)
        except OSError:
            if not is_complete():  # otherwise another process made the same set first
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _is_complete(root: Path, settings: Mapping[str, Any]) -> bool:
    """Whether `root` holds every image and label of exactly these settings."""
    if not (root / MANIFEST).is_file():
        return False
    manifest = json.loads((root / MANIFEST).read_text())
    found = {s: [len(list((root / d / s).glob(p))) for d, p in FILES] for s in SPLITS}
    full = all(found[s] == [n, n] for s, n in settings["counts"].items())
    return full and (root / "data.yaml").is_file() and all(manifest.get(k) == v for k, v in settings.items())


def _write(root: Path, settings: Mapping[str, Any]) -> None:
    import cv2
    from sklearn.datasets import load_digits

    digits, sources = cast(Any, load_digits()), split_indices(settings["seed"])
    for number, split in enumerate(SPLITS):
        for folder, _ in FILES:
            (root / folder / split).mkdir(parents=True)
        for index in range(settings["counts"][split]):
            # One generator a canvas: asking for more canvases leaves the first ones as they were.
            rng = np.random.default_rng([settings["seed"], number, index])
            chosen = rng.choice(sources[split], rng.integers(DIGITS_PER_CANVAS[0], DIGITS_PER_CANVAS[1] + 1))
            canvas = background(rng, settings["image_size"])
            boxes = draw_digits(canvas, digits.images[chosen], digits.target[chosen], rng)
            image = root / "images" / split / f"{index:05d}.png"
            if not cv2.imwrite(str(image), np.round(canvas).astype(np.uint8)):
                raise OSError(f"digits: could not write {image}")
            lines = (box.yolo_line(settings["image_size"]) for box in boxes)
            (root / "labels" / split / f"{index:05d}.txt").write_text("".join(lines))
    # No `path` key: Ultralytics then looks beside this file; `path: .` would mean the working directory.
    names = "".join(f"  {n}: '{n}'\n" for n in range(10))
    entries = "".join(f"{s}: images/{s}\n" for s in SPLITS)
    (root / "data.yaml").write_text(f"# Handwritten digits on textured canvases.\n{entries}names:\n{names}")
    (root / MANIFEST).write_text(json.dumps({**settings, "source_indices": sources}) + "\n")
