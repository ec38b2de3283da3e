"""From a camera's picture to boxes on it, around a YOLO detector that takes and gives plain arrays; numpy only.

The steps are those of Ultralytics' predictor for a model of fixed input size: letterbox, the model, non-maximum
suppression, boxes in the picture's own pixels. Bundles have a copy of this file (search/bundle), so it imports nothing
of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3), blue first, as cameras and OpenCV give it
Floats = NDArray[np.float32]

GREY = 114  # of the bars beside the picture
CONFIDENCE, IOU, MOST = 0.25, 0.7, 300  # Ultralytics' defaults for prediction
APART = 7680  # pixels between the boxes of two classes, so that they never overlap
ROWS = 48  # that are resized at once, so that they stay in the cache
BLOCK = 256  # candidates that are compared with one another at once: memory stays bounded


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a picture of ``shape`` (H, W) lies in the model's input: pixels left of it and above, and its scale."""

    shape: tuple[int, int]
    left: int
    top: int
    scale: tuple[float, float]  # of x and of y


def letterbox(image: Picture, height: int, width: int) -> tuple[Floats, Placement]:
    """The model's input: the picture as large as fits, in the middle, with grey bars beside it.

    (1, 3, height, width), red first, in [0, 1]. As Ultralytics' ``LetterBox``, up to what ``resize`` says.
    """
    shape = (image.shape[0], image.shape[1])
    ratio = min(height / shape[0], width / shape[1])
    inner = max(round(shape[0] * ratio), 1), max(round(shape[1] * ratio), 1)
    top, left = round((height - inner[0]) / 2 - 0.1), round((width - inner[1]) / 2 - 0.1)
    planes = np.full((1, 3, height, width), np.float32(GREY) / np.float32(255))
    place = planes[0, :, top : top + inner[0], left : left + inner[1]]
    np.divide(resize(image, *inner), np.float32(255), out=place)
    return planes, Placement(shape=shape, left=left, top=top, scale=(inner[1] / shape[1], inner[0] / shape[0]))


def resize(image: Picture, height: int, width: int) -> NDArray[np.uint8]:
    """The picture's planes (3, height, width), red first: bilinear, without a filter against aliasing.

    In the fixed-point arithmetic of OpenCV's ``INTER_LINEAR``, and equal to it when it shrinks the picture; when it
    enlarges it, a few values in a hundred differ, by one level of 255.
    """
    rows, columns = _taps(height, image.shape[0]), _taps(width, image.shape[1])
    places = [(3 * place + np.array([[2], [1], [0]])).ravel() for place in columns.places]
    shares = [np.tile(share, 3) for share in columns.shares]
    lines = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    result = np.empty((height, 3, width), dtype=np.uint8)
    for start in range(0, height, ROWS):
        some = slice(start, start + ROWS)
        total = np.full((len(rows.places[0, some]), 3 * width), 2, dtype=np.int32)
        for row, weight in zip(rows.places, rows.shares, strict=True):
            taken = lines.take(row[some], axis=0)
            left, right = (taken.take(place, axis=1).astype(np.int32) for place in places)
            left *= shares[0]
            right *= shares[1]
            left += right
            left >>= 4
            left *= weight[some, None]
            left >>= 16
            total += left
        result[some] = (total >> 2).reshape(-1, 3, width)
    return result.transpose(1, 0, 2)


@dataclass(frozen=True, kw_only=True)
class _Taps:
    """For each output position the two input positions that it is mixed from, and their shares of 2048: (2, size)."""

    places: NDArray[np.int64]
    shares: NDArray[np.int32]


@lru_cache(maxsize=16)
def _taps(size: int, before: int) -> _Taps:
    centre = ((np.arange(size) + 0.5) * (before / size) - 0.5).astype(np.float32)
    place = np.floor(centre).astype(np.int64)
    share = centre - place.astype(np.float32)
    share[(place < 0) | (place >= before - 1)] = 0
    place = place.clip(0, before - 1)
    places = np.stack([place, np.minimum(place + 1, before - 1)])
    return _Taps(places=places, shares=np.rint(np.stack([1 - share, share]) * np.float32(2048)).astype(np.int32))


def find_boxes(output: NDArray[Any], *, confidence: float = CONFIDENCE, iou: float = IOU, most: int = MOST) -> Floats:
    """The boxes of one picture in the input's pixels: (n, 6) of left, top, right, bottom, score, class; best first.

    As Ultralytics' ``non_max_suppression`` with its best class for each place, ties included: those of equal score
    keep their order. Classes are kept apart by an offset that is added in single precision as there, so that the same
    boxes remain, also where an overlap is within rounding of ``iou``.

    Args:
        output: of the detector, (1, 4 + classes, places) with the boxes' centre and size; or (1, n, 6) of a head that
            has chosen its boxes itself.
        confidence: a score must be above it.
        iou: a box goes that overlaps with a better one of its class by more than this.
        most: boxes to return, at most.
    """
    rows = np.asarray(output[0], dtype=np.float32)
    if rows.shape[-1] == 6:
        return rows[rows[:, 4] > confidence][:most]
    scores = rows[4:].max(axis=0)
    [places] = np.nonzero(scores > confidence)
    places = places[np.argsort(-scores[places], kind="stable")]
    chosen = rows[:, places]
    half = chosen[2:4] / 2
    found = np.empty((len(places), 6), dtype=np.float32)
    found[:, :2], found[:, 2:4] = (chosen[:2] - half).T, (chosen[:2] + half).T
    found[:, 4], found[:, 5] = scores[places], chosen[4:].argmax(axis=0)
    offsets = np.multiply(found[:, 5:], APART, dtype=np.float32)
    return found[suppress(np.add(found[:, :4], offsets, dtype=np.float32), iou, most)]


def suppress(boxes: Floats, iou: float, most: int) -> NDArray[np.int64]:
    """The numbers of the boxes that no better one covers by more than ``iou``, at most ``most``.

    Greedy non-maximum suppression; ``boxes`` (n, 4) are sorted, the best first.
    """
    kept = np.zeros(0, dtype=np.int64)
    for start in range(0, len(boxes), BLOCK):
        block = boxes[start : start + BLOCK]
        alive: NDArray[np.bool_] = ~np.any(_overlaps(boxes[kept], block) > iou, axis=0)
        covers: NDArray[np.bool_] = np.greater(_overlaps(block, block), iou)
        for number in range(len(block)):
            if alive[number]:
                alive[number + 1 :] &= ~covers[number, number + 1 :]
        kept = np.concatenate([kept, start + np.nonzero(alive)[0]])[:most]
        if len(kept) == most:
            break
    return kept


def _overlaps(one: Floats, other: Floats) -> Floats:
    """Intersection over union of every box of ``one`` (n, 4) with every box of ``other`` (m, 4): (n, m)."""
    left, top, right, bottom = one.T[:, :, None]
    other_left, other_top, other_right, other_bottom = other.T[:, None, :]
    wide = np.minimum(right, other_right) - np.maximum(left, other_left)
    tall = np.minimum(bottom, other_bottom) - np.maximum(top, other_top)
    shared = np.maximum(wide, 0) * np.maximum(tall, 0)
    area, other_area = (right - left) * (bottom - top), (other_right - other_left) * (other_bottom - other_top)
    with np.errstate(divide="ignore", invalid="ignore"):  # a box without an area covers nothing
        return shared / (area + other_area - shared)


def on_picture(boxes: Floats, placement: Placement) -> Floats:
    """Boxes of the model's input (n, 6) in the picture's pixels, cut off at its edges; as ``scale_boxes``."""
    height, width = placement.shape
    found = boxes.copy()
    found[:, [0, 2]] = ((boxes[:, [0, 2]] - placement.left) / placement.scale[0]).clip(0, width)
    found[:, [1, 3]] = ((boxes[:, [1, 3]] - placement.top) / placement.scale[1]).clip(0, height)
    return found
