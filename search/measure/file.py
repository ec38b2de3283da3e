"""Measures one ONNX file for the command line: latency beside another file, size, and accuracy if given data."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.measure.host import host_info
from search.measure.latency import measure_latency
from search.measure.pairs import Effort
from search.tasks.accuracy import further_metrics


def measure_file(
    model: Path, *, against: Path | None, data: Path | None, split: str, threads: int, effort: Effort
) -> dict[str, Any]:
    """The measurements of ``model`` as one flat object; accuracy is None without ``data``.

    Raises:
        UserError: a file is missing or refused, or the data has no such split.
    """
    baseline = against or model
    latency = measure_latency(model, baseline, threads=threads, effort=effort)
    size, reference = model.stat().st_size, baseline.stat().st_size
    result: dict[str, Any] = {
        "model": str(model),
        "against": str(baseline),
        "latency_ms_p50": latency.p50_ms,
        "latency_ms_p95": latency.p95_ms,
        "fps": latency.fps,
        "latency_ratio": latency.ratio,
        "latency_ratio_ci": [latency.ratio_low, latency.ratio_high],
        "against_ms_p50": latency.baseline_p50_ms,
        "size_bytes": size,
        "size_ratio": size / reference,
        "runs": latency.runs,
        "threads": threads,
        "warmup": latency.warmup,
        "clock": latency.clock,
        "waiting": latency.waiting,
        "doubts": list(latency.doubts),
        "host": host_info().id,
    }
    return result | (_accuracy(model, data, split, threads) if data else {})


def _accuracy(model: Path, data: Path, split: str, threads: int) -> dict[str, Any]:
    import onnx

    from search.data import make_view, read_data
    from search.measure.accuracy import measure_accuracy

    dataset = read_data(data)
    if split not in dataset.images:
        raise UserError(f"--split {split}: {data} has {', '.join(dataset.images)}")
    image_size = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[2].dim_value
    with tempfile.TemporaryDirectory() as folder:
        view = make_view(dataset, Path(folder))
        found = measure_accuracy(model, view, split=split, image_size=image_size, threads=threads)
    return {
        "split": split,
        "metric": found.metric,
        "accuracy": found.value,
        **further_metrics(found),
        "images": found.images,
    }
