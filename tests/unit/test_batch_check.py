"""What counts as the same answer, by sessions that give what they are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search.measure.batch_check import check_batch
from search.runtimes.session import Arrays, Input, Session


class Rows(Session):
    """Gives each picture's own values; ``mix`` changes what a batch gives."""

    def __init__(self, batch: int, mix: Callable[[NDArray[Any]], NDArray[Any]] = lambda rows: rows) -> None:
        self.inputs = (Input(name="x", shape=(batch, 3, 50), dtype=np.dtype(np.float32)),)
        self._mix = mix

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        return lambda: self.run(arrays)

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        return [self._mix(arrays[0] * np.array([[300.0], [1.0], [1e-6]]))]


def off_in_the_last_row(rows: NDArray[Any]) -> NDArray[Any]:
    """Scores, whose values are small beside those of boxes."""
    rows = rows.copy()
    rows[1, 2] *= 1.1
    return rows


def test_a_batch_is_taken_whose_answers_are_those_to_each_picture() -> None:
    rounded = Rows(4, lambda rows: rows * (1 + 1e-5))
    assert check_batch(Rows(1), rounded, 4, Path("m")) == ""


@pytest.mark.parametrize(
    "mix",
    [lambda rows: np.roll(rows, 1, axis=0), lambda rows: rows * 0 + rows.mean(axis=0), off_in_the_last_row],
    ids=["swapped", "averaged", "small values"],
)
def test_a_batch_is_refused_that_mixes_pictures_or_answers_otherwise(mix: Any) -> None:
    assert "answers at once are not those to each alone" in check_batch(Rows(1), Rows(4, mix), 4, Path("m"))


def test_a_batch_is_refused_that_gives_another_shape() -> None:
    assert "(1, 3, 50), where (4, 3, 50) was to be" in check_batch(Rows(1), Rows(4, lambda r: r[:1]), 4, Path("m"))
