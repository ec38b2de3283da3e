"""Whether two answers to one picture are the same, up to what different processors make of it; numpy only.

Bundles have a copy of this file (search/bundle), so it imports nothing of this project.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def differences(found: Floats, expected: Floats) -> tuple[float, float] | None:
    """How far apart two answers are: (pixels, score), the largest of each; None if one has what the other lacks.

    Rows are matched by their class, the nearest first, since equal scores may change places.

    Args:
        found: boxes (n, 6) of left, top, right, bottom, score, class; or classes (n, 2) of class, probability.
        expected: the same of the other.
    """
    if found.shape != expected.shape:
        return None
    if found.shape[1] == 2:
        found, expected = _as_boxes(found), _as_boxes(expected)
    left = list(range(len(found)))
    pixels = score = 0.0
    for row in expected:
        same = [number for number in left if found[number, 5] == row[5]]
        if not same:
            return None
        apart = np.abs(found[same, :5] - row[:5])
        nearest = int(np.argmin(apart[:, :4].max(axis=1) + apart[:, 4]))
        pixels, score = max(pixels, float(apart[nearest, :4].max())), max(score, float(apart[nearest, 4]))
        left.remove(same[nearest])
    return pixels, score


def _as_boxes(classes: Floats) -> Floats:
    rows = np.zeros((len(classes), 6), dtype=np.float32)
    rows[:, 4], rows[:, 5] = classes[:, 1], classes[:, 0]
    return rows
