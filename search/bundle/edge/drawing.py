"""Answers drawn on their pictures."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GOLDEN = 0.618  # neighbours on the list of classes get hues far apart


def drawn(pixels: NDArray[np.uint8], answer: NDArray[np.float32], labels: list[str]) -> Image.Image:
    """The picture (H, W, 3, blue first) with its boxes (n, 6), or with the names of its classes (n, 2)."""
    image = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    pen = ImageDraw.Draw(image)
    size = max(10, round(max(image.size) / 50))
    font = ImageFont.load_default(size)
    if answer.shape[1] == 2:
        for line, (label, score) in enumerate(answer.tolist()):
            _write(pen, (0, line * (size + 4)), f"{labels[int(label)]} {score:.2f}", int(label), font)
        return image
    for left, top, right, bottom, score, label in reversed(answer.tolist()):  # the best on top
        colour = _colour(int(label))
        pen.rectangle((left, top, right, bottom), outline=colour, width=max(1, size // 8))
        place = (left, max(0, top - size - 4))
        _write(pen, place, f"{labels[int(label)]} {score:.2f}", int(label), font)
    return image


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    label: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    left, top, right, bottom = pen.textbbox(place, text, font=font)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=_colour(label))
    pen.text(place, text, fill="black", font=font)


def _colour(label: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN % 1, 0.6, 1)
    return round(255 * red), round(255 * green), round(255 * blue)
