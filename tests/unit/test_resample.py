"""Accuracies on resampled images: against Ultralytics' own metric, and against what is known on paper."""

from __future__ import annotations

import numpy as np
import pytest
from ultralytics.utils.metrics import ap_per_class

from search.tasks.resample import RESAMPLES, Boxes, drawn, interval, mean_precision, packed, standard_error, unpacked

IMAGES = 25


def made_up(seed: int, *, classes: int = 4) -> Boxes:
    """Detections and true boxes, some images without either, the last class rare; no two scores are equal."""
    rng = np.random.default_rng(seed)
    counts, boxes = rng.integers(0, 12, IMAGES), rng.integers(0, 5, IMAGES)
    counts[3] = boxes[4] = boxes[5] = 0
    rare = [0.4, 0.4, 0.17, 0.03][:classes]
    hits, scores, own, labels = [], [], [], []
    for count, true in zip(counts, boxes, strict=True):
        score = rng.random(count)
        # The overlap of a detection: right at every threshold below it, and likelier so with a high score.
        overlap = rng.random(count) * 0.6 + 0.5 * score
        hits.append(overlap[:, None] > np.linspace(0.5, 0.95, 10))
        scores.append(score)
        own.append(rng.choice(classes, count, p=rare).astype(float))
        labels.append(rng.choice(classes, true, p=rare).astype(float))
    # No more right detections of a class than it has true boxes.
    for label in range(classes):
        left = np.full(10, sum((image == label).sum() for image in labels))
        for image, kind in zip(hits, own, strict=True):
            for row in np.flatnonzero(kind == label):
                image[row] &= left > 0
                left -= image[row]
    return Boxes(hits=hits, scores=scores, classes=own, labels=labels)


def by_ultralytics(found: Boxes, draw: np.ndarray) -> float:
    """mAP with every image there as often as it was drawn."""
    order = np.repeat(np.arange(IMAGES), draw)
    tp, conf, own, labels = (
        np.concatenate([images[int(index)] for index in order])
        for images in (found.hits, found.scores, found.classes, found.labels)
    )
    return float(ap_per_class(tp, conf, own, labels)[5].mean()) if len(labels) else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_precision_on_resamples_is_that_of_ultralytics_on_repeated_images(seed: int) -> None:
    found, draws = made_up(seed), drawn(IMAGES)[:60]
    expected = [by_ultralytics(found, draw) for draw in draws]
    assert np.ptp(expected) > 0.05
    assert mean_precision(found, draws) == pytest.approx(expected, abs=1e-9)


def test_a_resample_without_any_true_box_has_no_precision() -> None:
    found = made_up(0)
    empty = np.array([[number in (4, 5) for number in range(IMAGES)]], dtype=int)
    assert mean_precision(found, empty).tolist() == [0.0]


def test_the_draws_are_those_of_all_models() -> None:
    draws = drawn(87)
    assert draws.shape == (RESAMPLES, 87)
    assert (draws.sum(axis=1) == 87).all()
    assert (drawn(87) == draws).all()
    # Drawn with repetition: an image is left out of a resample with probability (1 - 1/n)^n.
    assert (draws == 0).mean() == pytest.approx((1 - 1 / 87) ** 87, abs=0.01)


def test_the_error_of_a_share_and_of_a_difference_are_those_on_paper() -> None:
    """Of n images p are right: variance p (1 - p) / (n - 1). Of differences: that of their values -1, 0 and 1."""
    n, rng = 400, np.random.default_rng(1)
    ours, theirs = np.zeros(n), np.zeros(n)
    ours[:300] = theirs[:290] = 1  # right together, but for ten
    theirs[300:304] = 1
    order = rng.permutation(n)
    draws = drawn(n)
    first, second = (draws @ hits[order] / n for hits in (ours, theirs))
    alone, paired = standard_error(first, n), standard_error(first - second, n)
    assert alone == pytest.approx(np.sqrt(0.75 * 0.25 / (n - 1)), rel=0.15)
    assert paired == pytest.approx(np.std(ours - theirs, ddof=1) / np.sqrt(n), rel=0.15)
    assert paired < alone / 2


def test_the_interval_stays_within_zero_and_one() -> None:
    wide = np.linspace(0.8, 1, 200)
    low, high = interval(0.97, wide, 50)
    assert (low, high) == (pytest.approx(0.97 - 1.96 * np.std(wide) * np.sqrt(50 / 49)), 1.0)
    assert interval(0.97, np.full(200, 0.97), 1) == (0.0, 1.0)  # one image says nothing about others


def test_accuracies_are_packed_small_and_read_back() -> None:
    values = np.random.default_rng(0).random(RESAMPLES)
    assert unpacked(packed(values)) == pytest.approx(values, abs=1e-5)
    assert len(packed(values)) < 600
    assert unpacked(packed(np.array([0.0, 1.0]))).tolist() == [0.0, 1.0]
