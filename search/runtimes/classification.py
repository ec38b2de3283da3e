"""From a camera's picture to its likeliest classes, around a YOLO classifier that takes and gives plain arrays.

The steps are those of Ultralytics' predictor. Besides numpy they need Pillow, whose resizing they use. Bundles have
a copy of this file (search/bundle), so it imports nothing of this project.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3), blue first
Floats = NDArray[np.float32]

TOP = 5


def centre_crop(image: Picture, height: int, width: int) -> Floats:
    """The model's input: the middle of the picture whose shorter side was made to fit, as ``classify_transforms``.

    (1, 3, height, width), red first, in [0, 1]. An input that is not square takes the whole picture, stretched.

    Raises:
        ImportError: Pillow is not installed.
    """
    from PIL import Image

    tall, wide = image.shape[:2]
    if height != width:
        size = (width, height)
    elif wide <= tall:
        size = (width, int(height * tall / wide))
    else:
        size = (int(width * wide / tall), height)
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    top, left = round((size[1] - height) / 2), round((size[0] - width) / 2)
    middle = small[top : top + height, left : left + width, ::-1]
    return np.ascontiguousarray(np.divide(middle.transpose(2, 0, 1), np.float32(255)))[None]


def likeliest(output: NDArray[Any]) -> Floats:
    """The first five classes of one picture: (5, 2) of class and probability, fewer where there are fewer classes.

    Args:
        output: of the classifier, (1, classes): probabilities, or logits if they do not add up to one.
    """
    values = np.asarray(output[0], dtype=np.float32)
    if values.min() < 0 or abs(float(values.sum()) - 1) > 0.05:
        powers = np.exp(values - values.max())
        values = powers / powers.sum()
    best = np.argsort(-values, kind="stable")[:TOP]
    return np.stack([best.astype(np.float32), values[best]], axis=1)
