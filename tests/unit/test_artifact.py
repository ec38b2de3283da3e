"""What is measured of a file, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from search import artifact
from search.artifact import Gauge
from search.errors import MeasurementError
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.target import Target
from spaces.recipe import Recipe
from tests.fakes import make_record


def test_a_file_that_crashes_its_runtime_is_not_loaded_by_whoever_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timing is in a child process, validation is not."""
    recipe = Recipe(image_size=64)
    made = make_record(recipe).measurement
    assert made is not None and made.accuracy is not None
    validated: list[Path] = []
    monkeypatch.setattr(artifact, "measure_accuracy", lambda file, *_, **__: validated.append(file) or made.accuracy)

    def latency(file: Path, effort: Effort) -> Latency:
        if file.name == "bad.onnx":
            raise MeasurementError(f"{file.name} ended its runtime")
        return made.latency

    gauge = Gauge(
        measure_latency=latency, target=Target(), data=tmp_path, threads=1, baseline_size=8, parameters=1, flops=1
    )
    for name in ("bad.onnx", "good.onnx"):
        (tmp_path / name).write_bytes(b"1234")
    with pytest.raises(MeasurementError):
        gauge.full(tmp_path / "bad.onnx", recipe)
    assert validated == []
    found = gauge.full(tmp_path / "good.onnx", recipe)
    assert validated == [tmp_path / "good.onnx"]
    assert (found.accuracy, found.latency, found.size_ratio) == (made.accuracy, made.latency, 0.5)
