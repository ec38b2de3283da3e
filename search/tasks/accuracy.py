"""Accuracy of a model on one split, by task; all numbers are fractions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class _OnImages:
    """What an accuracy was measured on, and how far it depends on these images.

    ``low`` and ``high`` bound the value with 95 % confidence, for other images of the same kind; None if that is not
    known. ``resampled`` is the value on resampled images, the same ones for every model, packed into text
    (``search.tasks.resample``); empty if not known.
    """

    split: str
    images: int
    low: float | None = None
    high: float | None = None
    resampled: str = ""


@dataclass(frozen=True, kw_only=True)
class DetectionAccuracy(_OnImages):
    """How well boxes are found: COCO's mean average precision, and precision and recall at the best F1."""

    metric: ClassVar[str] = "mAP50-95"
    map50_95: float
    map50: float
    precision: float
    recall: float

    @property
    def value(self) -> float:
        """What the search maximises."""
        return self.map50_95


@dataclass(frozen=True, kw_only=True)
class ClassificationAccuracy(_OnImages):
    """The share of images whose class has the highest score (top-1), or one of the five highest (top-5)."""

    metric: ClassVar[str] = "top-1"
    top1: float
    top5: float

    @property
    def value(self) -> float:
        """What the search maximises."""
        return self.top1


Accuracy = DetectionAccuracy | ClassificationAccuracy
SEARCHED = ("map50_95", "top1")  # the fields that ``value`` gives
COMMON = ("split", "images", "low", "high", "resampled")


def further_metrics(accuracy: Accuracy) -> dict[str, float]:
    """The metrics beside the one that the search maximises, by name."""
    return {name: number for name, number in asdict(accuracy).items() if name not in (*SEARCHED, *COMMON)}


def shown(accuracy: Accuracy) -> dict[str, Any]:
    """An accuracy as a mapping, without what only a comparison needs."""
    return {name: number for name, number in asdict(accuracy).items() if name != "resampled"}


def value_of(content: dict[str, Any]) -> float:
    """``value`` of an accuracy that was turned into a mapping."""
    return next(content[name] for name in SEARCHED if name in content)
