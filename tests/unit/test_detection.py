"""The steps around a detector, against Ultralytics' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision  # where it is imported Ultralytics takes its suppression, which keeps the order of ties
from numpy.typing import NDArray
from ultralytics.data.augment import LetterBox
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import scale_boxes

from search.runtimes.detection import APART, find_boxes, letterbox, on_picture, suppress

SHRUNK = [(720, 1280, 320, 320), (480, 640, 320, 320), (719, 1279, 320, 640), (700, 31, 320, 320), (640, 640, 320, 320)]
assert torchvision.__version__
ENLARGED = [(80, 100, 320, 320), (2, 2, 64, 96), (1, 300, 320, 320)]


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def theirs(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    boxed: Any = LetterBox((height, width), auto=False)(image=image)
    planes = torch.from_numpy(boxed)[None].permute(0, 3, 1, 2).contiguous().flip(1)
    return planes.float().div_(255).numpy()


@pytest.mark.parametrize("case", SHRUNK)
def test_a_picture_that_shrinks_is_letterboxed_as_by_ultralytics(case: tuple[int, int, int, int]) -> None:
    image = picture(*case[:2])
    ours, _ = letterbox(image, *case[2:])
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs(image, *case[2:]))


@pytest.mark.parametrize("case", ENLARGED)
def test_a_picture_that_grows_differs_by_a_level_in_a_few_places(case: tuple[int, int, int, int]) -> None:
    image = picture(*case[:2])
    levels = 255 * np.abs(letterbox(image, *case[2:])[0] - theirs(image, *case[2:]))
    assert levels.max() < 1.01
    assert (levels > 0.5).mean() < 0.05


def test_a_picture_of_the_inputs_size_is_left_as_it_is_and_a_view_of_another_is_read_as_it_looks() -> None:
    image = picture(64, 96)
    np.testing.assert_array_equal(letterbox(image, 64, 96)[0], theirs(image, 64, 96))
    view = picture(200, 300)[::-1, ::2]
    np.testing.assert_array_equal(letterbox(view, 64, 96)[0], theirs(view.copy(), 64, 96))


def prediction(places: int, classes: int, *, seed: int, confident: float, levels: int | None = None) -> Any:
    """Boxes in few clusters, so that many overlap; with ``levels``, scores take so many values, and so tie."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(40, 280, (2, max(1, places // 12))).repeat(12, axis=1)[:, :places]
    centre = np.resize(centre, (2, places)) + rng.normal(0, 4, (2, places))
    size = rng.uniform(30, 60, (2, places))
    scores = rng.random((classes, places)) * np.where(rng.random(places) < confident, 1, 0.2)
    if levels:
        scores = np.round(scores * levels) / levels
    return np.concatenate([centre, size, scores])[None].astype(np.float32)


def their_boxes(output: NDArray[np.float32]) -> NDArray[np.float32]:
    found: Any = non_max_suppression(torch.from_numpy(output), 0.25, 0.7, max_det=300)
    return found[0].numpy()


CASES: dict[str, Any] = {
    "usual": {"places": 2100, "classes": 3, "confident": 0.05},
    "one class": {"places": 2100, "classes": 1, "confident": 0.1},
    "many classes": {"places": 2100, "classes": 80, "confident": 0.02},
    "ties": {"places": 2100, "classes": 3, "confident": 0.1, "levels": 10},
    "many boxes": {"places": 8400, "classes": 10, "confident": 0.9},
    "no boxes": {"places": 2100, "classes": 3, "confident": 0.0},
    "one place": {"places": 1, "classes": 3, "confident": 1.0},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_the_boxes_are_those_of_ultralytics(name: str, seed: int) -> None:
    output = prediction(**CASES[name], seed=seed)
    found, expected = find_boxes(output), their_boxes(output)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if name == "many boxes":
        assert len(found) == 300
    if name == "no boxes":
        assert found.shape == (0, 6)
    if name == "usual":
        assert 0 < len(found) < (output[0, 4:].max(axis=0) > 0.25).sum()  # some were suppressed


def test_each_kept_box_is_one_that_no_better_kept_one_covers() -> None:
    """Greedy suppression by its definition, one pair at a time."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 100, (700, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 40, (700, 2))], axis=1).astype(np.float32)

    def overlap(one: Any, other: Any) -> float:
        sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
        areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
        shared = float(sides[0] * sides[1])
        return shared / (sum(areas) - shared)

    kept: list[int] = []
    for number, box in enumerate(boxes):
        if all(overlap(boxes[better], box) <= 0.5 for better in kept):
            kept.append(number)
    assert 100 < len(kept) < 600
    assert suppress(boxes, 0.5, 1000).tolist() == kept
    assert suppress(boxes, 0.5, 50).tolist() == kept[:50]


def test_boxes_of_no_area_and_of_two_classes_do_not_suppress_one_another() -> None:
    output = np.array([[[50, 50, 50, 50], [50, 50, 50, 50], [0, 0, 20, 20], [0, 0, 20, 20]]], dtype=np.float32)
    scores = np.array([[[0.9, 0.8, 0.7, 0.0], [0.0, 0.0, 0.0, 0.6]]], dtype=np.float32)
    found = find_boxes(np.concatenate([output, scores], axis=1))
    assert found[:, 4:].tolist() == pytest.approx(np.array([[0.9, 0], [0.8, 0], [0.7, 0], [0.6, 1]]))
    assert APART > 640


def test_a_head_that_has_chosen_its_boxes_is_only_cut_off() -> None:
    rows = np.random.default_rng(0).random((1, 600, 6)).astype(np.float32)
    np.testing.assert_array_equal(find_boxes(rows), their_boxes(rows))


@pytest.mark.parametrize("case", SHRUNK + ENLARGED)
def test_boxes_return_to_the_picture_as_with_ultralytics(case: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(1)
    boxes = np.concatenate([rng.uniform(-20, 340, (50, 4)), rng.random((50, 2))], axis=1).astype(np.float32)
    _, placement = letterbox(picture(*case[:2]), *case[2:])
    expected: Any = scale_boxes(case[2:], torch.from_numpy(boxes[:, :4].copy()), case[:2])
    found = on_picture(boxes, placement)
    np.testing.assert_allclose(found[:, :4], expected.numpy(), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(found[:, 4:], boxes[:, 4:])
