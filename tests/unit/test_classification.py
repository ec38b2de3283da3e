"""The steps around a classifier, against Ultralytics' own and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from ultralytics.data.augment import classify_transforms

from search.runtimes.classification import centre_crop, likeliest


@pytest.mark.parametrize(
    "case", [(720, 1280, 224, 224), (481, 333, 64, 64), (32, 32, 32, 32), (20, 50, 64, 64), (100, 80, 32, 48)]
)
def test_the_input_is_that_of_ultralytics(case: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*case[:2], 3), dtype=np.uint8)
    size: Any = case[2:] if case[2] != case[3] else case[2]
    expected: Any = classify_transforms(size)(Image.fromarray(np.ascontiguousarray(image[..., ::-1])))
    np.testing.assert_allclose(centre_crop(image, *case[2:]), expected.numpy()[None], atol=1e-7)


def test_probabilities_stay_and_logits_become_some() -> None:
    shares = np.array([[0.05, 0.4, 0.1, 0.2, 0.05, 0.15, 0.05]])
    found = likeliest(shares)
    assert found[:, 0].tolist() == [1, 3, 5, 2, 0]
    assert found[:, 1] == pytest.approx([0.4, 0.2, 0.15, 0.1, 0.05])
    np.testing.assert_allclose(likeliest(np.log(shares) + 3), found, rtol=1e-5)
    assert likeliest(np.array([[0.3, 0.7]])).shape == (2, 2)
