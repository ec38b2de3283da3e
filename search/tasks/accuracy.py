"""Accuracy of a model on one split, by task; all numbers are fractions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class DetectionAccuracy:
    """How well boxes are found: COCO's mean average precision, and precision and recall at the best F1."""

    metric: ClassVar[str] = "mAP50-95"
    split: str
    images: int
    map50_95: float
    map50: float
    precision: float
    recall: float

    @property
    def value(self) -> float:
        """What the search maximises."""
        return self.map50_95


@dataclass(frozen=True, kw_only=True)
class ClassificationAccuracy:
    """The share of images whose class has the highest score (top-1), or one of the five highest (top-5)."""

    metric: ClassVar[str] = "top-1"
    split: str
    images: int
    top1: float
    top5: float

    @property
    def value(self) -> float:
        """What the search maximises."""
        return self.top1


Accuracy = DetectionAccuracy | ClassificationAccuracy
SEARCHED = ("map50_95", "top1")  # the fields that ``value`` gives
COMMON = ("split", "images")


def further_metrics(accuracy: Accuracy) -> dict[str, float]:
    """The metrics beside the one that the search maximises, by name."""
    return {name: number for name, number in asdict(accuracy).items() if name not in (*SEARCHED, *COMMON)}


def value_of(content: dict[str, Any]) -> float:
    """``value`` of an accuracy that was turned into a mapping."""
    return next(content[name] for name in SEARCHED if name in content)
