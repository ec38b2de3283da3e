"""What earlier studies say to a new one: hints where to look, never results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from search.record import Record
from search.results import open_study
from search.store import Records
from spaces.recipe import STRIDE, Recipe


@dataclass(frozen=True, kw_only=True)
class Hint:
    """A finished record of an earlier study, as it might look in this one."""

    recipe: Recipe
    accuracy: float
    latency: float
    size: float


def hints_of(folders: Iterable[Path], *, baseline: Record | None, image_size: int) -> list[Hint]:
    """The finished records of the studies in ``folders``, moved to this study's baseline and image size.

    Latency and size are ratios to each study's own baseline already. Accuracy is shifted by the difference of the
    two baselines, and an image size is scaled like the studies' own, so that records of other data can be used.

    Raises:
        UserError: a folder is no study.
    """
    found: list[Hint] = []
    for folder in folders:
        config, store = open_study(folder)
        found += hints(store, baseline=baseline, scale=image_size / config.image_size)
    return found


def hints(store: Records, *, baseline: Record | None, scale: float = 1.0) -> list[Hint]:
    """The finished records of ``store`` as hints; image sizes are multiplied by ``scale``."""
    shift = _accuracy(baseline) - _accuracy(store.baseline) if baseline and store.baseline else 0.0
    return [
        Hint(
            recipe=record.recipe.model_copy(update={"image_size": _scaled(record.recipe.image_size, scale)}),
            accuracy=_accuracy(record) + shift,
            latency=record.measurement.latency.ratio,
            size=record.measurement.size_ratio,
        )
        for record in store.searched
        if record.values(("accuracy", "latency")) is not None and record.measurement is not None
    ]


def _accuracy(record: Record) -> float:
    assert record.measurement is not None and record.measurement.accuracy is not None
    return record.measurement.accuracy.value


def _scaled(image_size: int, scale: float) -> int:
    return max(STRIDE, round(image_size * scale / STRIDE) * STRIDE)
