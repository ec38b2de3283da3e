"""How far an accuracy depends on the images that it was measured on: the bootstrap over images.

A resample draws as many images as there are, with repetition (Efron & Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 6). The draws follow from the number of images alone, so two models measured on the same images have the
same resamples, and the spread of their *difference* is known too. It is far smaller than that of either: images that
are hard for one are mostly hard for the other. Standard errors need no more than these 200 resamples; the intervals
are the value and 1.96 of them to each side, since a percentile of so few would be rough, and mAP is a little higher on
images that repeat.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 200
Z = 1.96  # standard errors on each side of a 95 % interval
STEPS = 65535  # accuracies are kept as 16-bit numbers
RECALLS: Floats = np.linspace(0, 1, 101)  # COCO's


def drawn(images: int) -> Ints:
    """How often each of so many images is in each resample, shape (RESAMPLES, images); always the same."""
    return np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)


def standard_error(resampled: ArrayLike, images: int) -> Floats:
    """The standard error of what was computed on resamples, the last axis; infinite for one image, which says nothing.

    The bootstrap's variance is (n - 1) / n of the unbiased one.
    """
    if images < 2:
        return np.full(np.shape(resampled)[:-1], np.inf)
    return np.std(np.asarray(resampled, dtype=np.float64), axis=-1) * np.sqrt(images / (images - 1))


def interval(value: float, resampled: Floats, images: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, within 0 and 1."""
    half = Z * float(standard_error(resampled, images))
    return max(0.0, value - half), min(1.0, value + half)


def packed(accuracies: Floats) -> str:
    """Accuracies in [0, 1] as text, 2.7 characters each, to within 1e-5."""
    return base64.b64encode(np.round(accuracies * STEPS).astype("<u2").tobytes()).decode()


def unpacked(text: str) -> Floats:
    """What ``packed`` was given."""
    return np.frombuffer(base64.b64decode(text), dtype="<u2") / STEPS


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """What a detector found in n images, as Ultralytics' validator keeps it: each field has an array for every image.

    ``hits`` is (detections, thresholds): whether a detection is right at each overlap; ``scores`` and ``classes`` are
    (detections,), ``labels`` the classes of the image's true boxes.
    """

    hits: Sequence[NDArray[np.bool_]]
    scores: Sequence[Floats]
    classes: Sequence[Floats]
    labels: Sequence[Floats]


@dataclass(frozen=True, kw_only=True)
class _OneClass:
    """Detections of a class, highest score first: the image of each, and for each overlap which of them are right."""

    images: Ints
    right: list[Ints]
    labelled: Ints  # the image of each true box


def mean_precision(found: Boxes, draws: Ints) -> Floats:
    """The mAP over classes and overlaps on each resample, shape (resamples,).

    It is what ``ultralytics.utils.metrics.ap_per_class`` gives for images that are repeated so often.

    Only right detections matter: between two of them the envelope of the precision is that of the second, so AP is the
    area below steps. A class without a true box in a resample is left out, as Ultralytics does.

    Args:
        found: the detections and the true boxes.
        draws: (resamples, images), how often each image counts.
    """
    classes = _by_class(found)
    means = np.zeros(len(draws))
    for number, draw in enumerate(draws):
        present = [own for own in classes if draw[own.labelled].any()]
        if present:
            means[number] = np.mean([_precision(own, draw) for own in present])
    return means


def _by_class(found: Boxes) -> list[_OneClass]:
    images = np.repeat(np.arange(len(found.scores)), [len(scores) for scores in found.scores])
    labelled = np.repeat(np.arange(len(found.labels)), [len(labels) for labels in found.labels])
    hits, labels = np.concatenate(found.hits).astype(bool), np.concatenate(found.labels)
    order = np.argsort(-np.concatenate(found.scores))
    classes = np.concatenate(found.classes)[order]
    own: list[_OneClass] = []
    for label in np.unique(labels):
        mine = order[classes == label]
        right = [np.flatnonzero(column) for column in hits[mine].T]
        own.append(_OneClass(images=images[mine], right=right, labelled=labelled[labels == label]))
    return own


def _precision(own: _OneClass, draw: Ints) -> float:
    """AP of one class, the mean over the overlaps."""
    count, seen = draw[own.labelled].sum(), np.cumsum(draw[own.images])
    areas: list[float] = []
    for right in own.right:
        recalled = np.cumsum(draw[own.images[right]])
        precision = recalled / np.maximum(seen[right], 1)  # nothing is seen before the first image that was drawn
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        heights = envelope[np.searchsorted(recalled / count, RECALLS, side="right")]
        areas.append(float(np.trapezoid(heights, RECALLS)))
    return float(np.mean(areas))
