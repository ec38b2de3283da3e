"""Who teaches beside the labels.

``teacher`` is ``baseline``, or the absolute path of a checkpoint of another YOLO, such as a larger one, that knows
the same classes. ``teacher_device`` is where it computes (``cpu``, ``1``, ``cuda:1``), beside the student if empty.
Every ``weight`` is a factor of a loss that is added to Ultralytics' own; 0 to 1 is worth a search.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spaces.parts.base import Part


class NoDistill(Part):
    """The labels alone teach."""

    kind: Literal["none"] = "none"


class FeatureDistill(Part):
    """The student's features follow the teacher's: L2 distance of the head's inputs, weighted by its scores."""

    kind: Literal["feature"] = "feature"
    weight: float = Field(default=0.3, gt=0, le=100)
    teacher: str = Field(default="baseline", min_length=1)
    teacher_device: str = ""


class LogitDistill(Part):
    """The student's answers follow the teacher's: divergence of class scores and of box distributions.

    ``temperature`` softens both before they are compared; 1 leaves them as they are.
    """

    kind: Literal["logit"] = "logit"
    weight: float = Field(default=0.5, gt=0, le=100)
    temperature: float = Field(default=2.0, gt=0, le=100)
    teacher: str = Field(default="baseline", min_length=1)
    teacher_device: str = ""


class FeatureLogitDistill(Part):
    """Features and answers both follow the teacher's, each with a weight of its own."""

    kind: Literal["feature_logit"] = "feature_logit"
    feature_weight: float = Field(default=0.3, gt=0, le=100)
    logit_weight: float = Field(default=0.5, gt=0, le=100)
    temperature: float = Field(default=2.0, gt=0, le=100)
    teacher: str = Field(default="baseline", min_length=1)
    teacher_device: str = ""


class UnlabeledDistill(Part):
    """The teacher alone teaches, as in ``LogitDistill``, on pictures without labels.

    ``images`` is the absolute path of their folder; pictures in folders below it count too.
    """

    kind: Literal["unlabeled"] = "unlabeled"
    images: str = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0, le=100)
    temperature: float = Field(default=2.0, gt=0, le=100)
    teacher: str = Field(default="baseline", min_length=1)
    teacher_device: str = ""


Distill = Annotated[
    NoDistill | FeatureDistill | LogitDistill | FeatureLogitDistill | UnlabeledDistill, Field(discriminator="kind")
]
