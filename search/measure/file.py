"""Measures one model file for the command line: latency beside another file, size, and accuracy if given data."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.measure.apart import Apart
from search.measure.far import sessions_of
from search.measure.parcel import pack
from search.measure.pictures import pictures
from search.target import Target
from search.tasks.accuracy import further_metrics


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What to profile beside latency: pictures in one run, sessions at once (None: as fill the cores), pictures."""

    batch: int = 8
    streams: int | None = None
    images: Path | None = None


def measure_file(
    model: Path, *, target: Target, against: Path | None, data: Path | None, split: str, profile: Wish | None = None
) -> dict[str, Any]:
    """The measurements of ``model`` as one flat object; no accuracy without ``data``, no profile without ``profile``.

    Raises:
        UserError: a file is missing or refused, or the data has no such split.
    """
    baseline = against or model
    images = pictures(profile.images) if profile else []
    with Apart(target) as apart:
        latency = apart.measure(model, baseline=baseline)
        more = (
            apart.profile(model, baseline=baseline, images=images, batch=profile.batch, streams=profile.streams)
            if profile
            else None
        )
    size, reference = pack(model).size, pack(baseline).size
    result: dict[str, Any] = {
        "model": str(model),
        "against": str(baseline),
        "latency_ms_p50": latency.p50_ms,
        "latency_ms_p95": latency.p95_ms,
        "latency_batch": latency.batch,
        "fps": latency.fps,
        "latency_ratio": latency.ratio,
        "latency_ratio_ci": [latency.ratio_low, latency.ratio_high],
        "against_ms_p50": latency.baseline_p50_ms,
        "size_bytes": size,
        "size_ratio": size / reference,
        "runs": latency.runs,
        "threads": target.threads,
        "sessions": latency.sessions,
        "cold_start_ms": latency.cold_start_ms,
        "warmup": latency.warmup,
        "clock": latency.clock,
        "waiting": latency.waiting,
        "disturbed": latency.disturbed,
        "doubts": [*latency.doubts, *(more.doubts if more else ())],
        "target": target.name,
        "runtime": latency.runtime,
        "host": latency.host,
    }
    return result | (more.flat() if more else {}) | (accuracy_of(model, data, split, target) if data else {})


def accuracy_of(model: Path, data: Path, split: str, target: Target) -> dict[str, Any]:
    """The accuracy of ``model`` on a split of the user's ``data``, as a flat object. Raises UserError."""
    from search.data import make_view, read_data
    from search.measure.accuracy import measure_accuracy

    dataset = read_data(data)
    if split not in dataset.images:
        raise UserError(f"--split {split}: {data} has {', '.join(dataset.images)}")
    with sessions_of(target.as_runtime) as load:
        [item] = load(model).inputs
    with tempfile.TemporaryDirectory() as folder:
        view = make_view(dataset, Path(folder))
        found = measure_accuracy(model, view, split=split, image_size=item.shape[2], runtime=target.as_runtime)
    return {
        "split": split,
        "metric": found.metric,
        "accuracy": found.value,
        **further_metrics(found),
        "images": found.images,
    }
