"""Hand-made records for tests that need results but no training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from search.measure.latency import Latency
from search.record import BASELINE, Artifact, Measurement, Record, State
from search.tasks.accuracy import DetectionAccuracy
from search.tasks.resample import drawn, packed
from spaces.recipe import Recipe


def make_record(
    recipe: Recipe,
    *,
    accuracy: float | None = 0.5,
    latency: float = 0.5,
    size: float = 0.25,
    state: State = "complete",
    record_id: str | None = None,
    reason: str = "",
) -> Record:
    """A record of ``recipe`` with these results; only a complete one has an artifact."""
    found = None
    if accuracy is not None:
        found = DetectionAccuracy(split="val", images=8, map50_95=accuracy, map50=accuracy, precision=0.5, recall=0.5)
    measured = Measurement(
        accuracy=found,
        latency=Latency(
            p50_ms=10 * latency,
            p95_ms=11 * latency,
            fps=100 / latency,
            ratio=latency,
            ratio_low=latency * 0.99,
            ratio_high=latency * 1.01,
            baseline_p50_ms=10.0,
            runs=100,
            threads=1,
            clock="thread-cpu",
            cores=None,
        ),
        size_bytes=round(size * 1e7),
        size_ratio=size,
        parameters=1000,
        flops=2000,
        host="host",
    )
    name = record_id or recipe.id
    artifact = Artifact(path=f"artifacts/{name}/model.onnx", sha256="0" * 64, size_bytes=round(size * 1e7))
    complete = state == "complete"
    return Record(
        id=name,
        recipe=recipe,
        state=state,
        reason=reason,
        artifact=artifact if complete else None,
        measurement=measured if state != "failed" else None,
        at=1.0,
    )


def on_images(made: Record, right: np.ndarray) -> Record:
    """The record with an accuracy that is the share of these images."""
    assert made.measurement is not None and made.measurement.accuracy is not None
    images, share = len(right), float(right.mean())
    half = 1.96 * math.sqrt(share * (1 - share) / images)
    accuracy: Any = replace(
        made.measurement.accuracy,
        images=images,
        map50_95=share,
        low=share - half,
        high=share + half,
        resampled=packed(drawn(images) @ right / images),
    )
    return made.model_copy(update={"measurement": made.measurement.model_copy(update={"accuracy": accuracy})})


def make_baseline(image_size: int = 64, accuracy: float = 0.6) -> Record:
    """The baseline's record, at ratio 1."""
    return make_record(Recipe(image_size=image_size), accuracy=accuracy, latency=1.0, size=1.0, record_id=BASELINE)
