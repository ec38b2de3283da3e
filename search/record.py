"""What is known about one recipe after it was tried: the file, its measurements, and how it ended."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from search.measure.latency import Latency
from search.tasks.accuracy import Accuracy
from spaces.recipe import Recipe

State = Literal["complete", "screened", "stopped", "failed"]
Objective = Literal["accuracy", "latency", "size"]
MAXIMIZED: frozenset[Objective] = frozenset({"accuracy"})
BASELINE = "baseline"  # the record id of the uncompressed model


class Artifact(BaseModel):
    """A file, or a folder of files, that can be deployed; ``path`` is relative to the study folder."""

    model_config = ConfigDict(frozen=True)

    path: str
    format: str = "onnx"
    sha256: str
    size_bytes: int


class Measurement(BaseModel):
    """What was measured on the artifact, and the id of the host that it was measured on."""

    model_config = ConfigDict(frozen=True)

    accuracy: Accuracy | None
    latency: Latency
    size_bytes: int
    size_ratio: float
    parameters: int
    flops: int
    host: str
    test: Accuracy | None = None


class Elsewhere(BaseModel):
    """The same recipe on another target of the study: the file for it and its measurement, or why there is none."""

    model_config = ConfigDict(frozen=True)

    artifact: Artifact | None = None
    measurement: Measurement | None = None
    reason: str = ""


class Record(BaseModel):
    """One recipe and how it ended.

    ``seconds`` is the time of each step of its trial. ``curve`` is what its trunk showed while it trained: pairs of
    epochs done, over all trainings of the recipe, and mAP50-95 of the float model on the validation split. ``at`` is
    when it was stored, in seconds since 1970; None before. ``elsewhere`` has what it is on the study's other targets.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    recipe: Recipe
    state: State
    reason: str = ""
    artifact: Artifact | None = None
    measurement: Measurement | None = None
    seconds: dict[str, float] = {}
    curve: tuple[tuple[int, float], ...] = ()
    at: float | None = None
    elsewhere: dict[str, Elsewhere] = {}

    def values(self, objectives: tuple[Objective, ...]) -> tuple[float, ...] | None:
        """The objectives of a finished record, or None for one that has no finite, complete result."""
        if self.state != "complete" or self.measurement is None or self.measurement.accuracy is None:
            return None
        known: dict[Objective, float] = {
            "accuracy": self.measurement.accuracy.value,
            "latency": self.measurement.latency.ratio,
            "size": self.measurement.size_ratio,
        }
        if not all(math.isfinite(value) for value in known.values()):
            return None
        return tuple(known[objective] for objective in objectives)


def losses(values: tuple[float, ...], objectives: tuple[Objective, ...]) -> tuple[float, ...]:
    """``values`` with maximised objectives negated, so that less is better everywhere."""
    return tuple(-v if o in MAXIMIZED else v for v, o in zip(values, objectives, strict=True))
