"""What a study found: its front, as the object that ``front --json`` prints and ``front.json`` holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.front import hypervolume, non_dominated, pick
from search.record import Record, losses
from search.store import Store
from search.study import StudyConfig, parse_study
from search.tasks.accuracy import further_metrics

Member = dict[str, Any]
ROUNDING = 1e-9  # 0.585 - 0.575 is 0.010000000000000009 in floating point


def open_study(folder: Path) -> tuple[StudyConfig, Store]:
    """The study in ``folder`` and its records. Raises UserError if there is none."""
    path = folder / "study.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no study folder: it has no study.yaml")
    import yaml

    return parse_study(yaml.safe_load(path.read_text(encoding="utf-8")), where=str(path)), Store(folder)


def front_records(config: StudyConfig, store: Store) -> list[Record]:
    """The finished records that keep the constraints and that no other of them dominates, fastest first."""
    kept = [record for record in store.searched if feasible(record, store.baseline, config)]
    points = [losses(record.values(config.objectives) or (), config.objectives) for record in kept]
    mask = non_dominated(points) if points else []
    front = [record for record, chosen in zip(kept, mask, strict=True) if chosen]
    return sorted(front, key=lambda record: record.measurement.latency.ratio if record.measurement else 0.0)


def summary(config: StudyConfig, store: Store, folder: Path) -> dict[str, Any]:
    """The whole result: what accuracy is, baseline, front, hypervolume, records, states and host.

    The hypervolume is in units of accuracy times ratios to the baseline: the volume between the front and the
    point of accuracy 0 at the baseline's own latency and size.
    """
    if store.baseline is None:
        raise UserError(f"{folder} has no baseline yet; go on with `python -m search resume {folder}`")
    front = front_records(config, store)
    tests = _known_tests(folder)
    corner = [0.0 if objective == "accuracy" else 1.0 for objective in config.objectives]
    points = [losses(record.values(config.objectives) or (), config.objectives) for record in front]
    host = folder / "host.json"
    measured = store.baseline.measurement
    assert measured and measured.accuracy
    return {
        "metric": measured.accuracy.metric,
        "baseline": member(store.baseline, store.baseline, tests),
        "front": [member(record, store.baseline, tests) for record in front],
        "hypervolume": hypervolume(points, corner) if points else 0.0,
        "records": len(store.searched),
        "states": store.states(),
        "host": json.loads(host.read_text(encoding="utf-8")) if host.is_file() else None,
    }


def member(record: Record, baseline: Record, tests: dict[str, Any]) -> Member:
    """One record as a flat object; accuracies are fractions, sizes bytes, times milliseconds."""
    measured, reference = record.measurement, baseline.measurement
    assert measured and measured.accuracy and reference and reference.accuracy and record.artifact
    latency = measured.latency
    return {
        "record_id": record.id,
        "accuracy": measured.accuracy.value,
        "accuracy_drop": reference.accuracy.value - measured.accuracy.value,
        **further_metrics(measured.accuracy),
        "latency_ms_p50": latency.p50_ms,
        "latency_ms_p95": latency.p95_ms,
        "fps": latency.fps,
        "latency_ratio": latency.ratio,
        "latency_ratio_ci": [latency.ratio_low, latency.ratio_high],
        "size_bytes": measured.size_bytes,
        "size_ratio": measured.size_ratio,
        "parameters": measured.parameters,
        "flops": measured.flops,
        "test": tests.get(record.id) or (asdict(measured.test) if measured.test else None),
        "recipe": record.recipe.model_dump(mode="json"),
        "artifact": record.artifact.path,
        "sha256": record.artifact.sha256,
    }


def choose(result: dict[str, Any], name: str) -> Member:
    """The member of the front that a pick's name stands for; see ``search.front.pick``."""
    front = result["front"]
    if not front:
        raise UserError("the front is empty: no record is complete and within the constraints")
    index = pick(
        name,
        accuracy=[m["accuracy"] for m in front],
        latency=[m["latency_ratio"] for m in front],
        size=[m["size_ratio"] for m in front],
        baseline_accuracy=result["baseline"]["accuracy"],
    )
    return front[index]


def _known_tests(folder: Path) -> dict[str, Any]:
    """Test accuracies measured before, by record id."""
    path = folder / "front.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {m["record_id"]: m["test"] for m in [content["baseline"], *content["front"]] if m.get("test")}


def feasible(record: Record, baseline: Record | None, config: StudyConfig) -> bool:
    """Whether a record is finished and keeps the study's constraints."""
    if record.values(config.objectives) is None or baseline is None or baseline.measurement is None:
        return False
    measured, limits = record.measurement, config.constraints
    assert measured and measured.accuracy and baseline.measurement.accuracy
    drop = baseline.measurement.accuracy.value - measured.accuracy.value
    return all(
        limit is None or value <= limit + ROUNDING
        for value, limit in (
            (drop, limits.max_accuracy_drop),
            (measured.latency.ratio, limits.max_latency_ratio),
            (measured.latency.p50_ms, limits.max_latency_ms),
            (measured.size_bytes / 1e6, limits.max_size_mb),
        )
    )
