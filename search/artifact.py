"""Files that can be deployed: measured, and put in their place whole, with recipe and measurement beside them."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from search.measure.accuracy import measure_accuracy
from search.measure.latency import Latency
from search.record import Artifact, Measurement
from search.tasks.accuracy import Accuracy
from spaces.recipe import Recipe

MeasureLatency = Callable[[Path, int], Latency]  # (file, runs), beside the study's baseline file


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """Measures files of one model: what does not depend on the file is known from the start."""

    measure_latency: MeasureLatency
    runs: int
    data: Path  # the study's data.yaml, with absolute paths
    threads: int
    baseline_size: int  # bytes
    parameters: int
    flops: int
    host: str

    def quick(self, file: Path) -> Measurement:
        """Latency, with a third of the runs, and size: all that can be known before training."""
        return self._measurement(file, None, max(20, self.runs // 3))

    def full(self, file: Path, recipe: Recipe) -> Measurement:
        """Accuracy on the validation split, latency and size; raises as ``accuracy`` does."""
        return self._measurement(file, self.accuracy(file, recipe), self.runs)

    def accuracy(self, file: Path, recipe: Recipe) -> Accuracy:
        """Accuracy on the validation split.

        Raises:
            FloatingPointError: it is not a number.
        """
        accuracy = measure_accuracy(file, self.data, image_size=recipe.image_size, threads=self.threads)
        if not math.isfinite(accuracy.value):
            raise FloatingPointError("the accuracy is not a number")
        return accuracy

    def _measurement(self, file: Path, accuracy: Accuracy | None, runs: int) -> Measurement:
        size = file.stat().st_size
        return Measurement(
            accuracy=accuracy,
            latency=self.measure_latency(file, runs),
            size_bytes=size,
            size_ratio=size / self.baseline_size,
            parameters=self.parameters,
            flops=self.flops,
            host=self.host,
        )


def write_artifact(
    record_id: str, file: Path, *, recipe: Recipe, measurement: Measurement, folder: Path
) -> Artifact:  # fmt: skip
    """Copies ``file`` into the study with its recipe and measurement beside it; the folder appears whole."""
    target = folder / "artifacts" / record_id
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        new = Path(temporary) / record_id
        new.mkdir()
        shutil.copy2(file, new / "model.onnx")
        (new / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        (new / "measurement.json").write_text(measurement.model_dump_json(indent=2), encoding="utf-8")
        if target.exists():  # left by a trial that was killed before its record was written
            shutil.rmtree(target)
        os.replace(new, target)
    return Artifact(
        path=f"artifacts/{record_id}/model.onnx",
        sha256=hashlib.sha256((target / "model.onnx").read_bytes()).hexdigest(),
        size_bytes=measurement.size_bytes,
    )
