"""Files that can be deployed: measured, and put in their place whole, with recipe and measurement beside them."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from search.measure.accuracy import measure_accuracy
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.measure.parcel import pack
from search.record import Artifact, Measurement
from search.target import Target
from search.tasks.accuracy import Accuracy
from spaces.recipe import Recipe

MeasureLatency = Callable[[Path, Effort], Latency]  # beside the study's baseline file


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """Measures files of one model: what does not depend on the file is known from the start."""

    measure_latency: MeasureLatency
    target: Target
    data: Path  # the study's data.yaml, with absolute paths
    threads: int
    baseline_size: int  # bytes
    parameters: int
    flops: int

    def quick(self, file: Path) -> Measurement:
        """Latency, with a quarter of the runs, and size: all that can be known before training."""
        return self._timed(file, self.target.effort(max(20, self.target.runs // 4)))

    def full(self, file: Path, recipe: Recipe) -> Measurement:
        """Accuracy on the validation split, latency and size; raises as ``accuracy`` does.

        Latency first: a file that hangs or crashes its runtime does so in the child that times it, not here.
        """
        timed = self._timed(file, self.target.effort())
        return timed.model_copy(update={"accuracy": self.accuracy(file, recipe)})

    def accuracy(self, file: Path, recipe: Recipe) -> Accuracy:
        """Accuracy on the validation split.

        Raises:
            FloatingPointError: it is not a number.
        """
        runtime = replace(self.target.as_runtime, threads=self.threads)
        accuracy = measure_accuracy(file, self.data, image_size=recipe.image_size, runtime=runtime)
        if not math.isfinite(accuracy.value):
            raise FloatingPointError("the accuracy is not a number")
        return accuracy

    def _timed(self, file: Path, effort: Effort) -> Measurement:
        size = pack(file).size
        latency = self.measure_latency(file, effort)
        return Measurement(
            accuracy=None,
            latency=latency,
            size_bytes=size,
            size_ratio=size / self.baseline_size,
            parameters=self.parameters,
            flops=self.flops,
            host=latency.host,
        )


def write_artifact(
    record_id: str, file: Path, *, recipe: Recipe, measurement: Measurement, folder: Path, form: str = "onnx"
) -> Artifact:
    """Copies ``file`` into the study with its recipe and measurement beside it; the folder appears whole.

    ``file`` may be a folder itself, as some formats are; ``form`` is the format.
    """
    parcel = pack(file)
    target = folder / "artifacts" / record_id
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        new = Path(temporary) / record_id
        new.mkdir()
        parcel.unpack(new)
        (new / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        (new / "measurement.json").write_text(measurement.model_dump_json(indent=2), encoding="utf-8")
        if target.exists():  # left by a trial that was killed before its record was written
            shutil.rmtree(target)
        os.replace(new, target)
    return Artifact(
        path=f"artifacts/{record_id}/{parcel.name}", format=form, sha256=parcel.sha256, size_bytes=parcel.size
    )


def install_artifact(record_id: str, delivered: Path, *, folder: Path) -> None:
    """Puts the files of a record, which a trial wrote below ``delivered``, into the study; they appear whole.

    What is there already was left by a driver that was killed before it wrote the record, and is replaced.
    """
    target = folder / "artifacts" / record_id
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        new = Path(temporary) / record_id
        shutil.copytree(delivered / "artifacts" / record_id, new)
        if target.exists():
            shutil.rmtree(target)
        os.replace(new, target)


def add_artifact(record_id: str, file: Path, *, folder: Path, form: str) -> Artifact:
    """Copies ``file``, in another format, beside the artifact of a record that is there."""
    parcel = pack(file)
    parcel.unpack(folder / "artifacts" / record_id)
    return Artifact(
        path=f"artifacts/{record_id}/{parcel.name}", format=form, sha256=parcel.sha256, size_bytes=parcel.size
    )
