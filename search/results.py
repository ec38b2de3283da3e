"""What a study found: its front, as the object that ``front --json`` prints and ``front.json`` holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from search.elsewhere import agreement, seen_from
from search.errors import UserError
from search.final import Finals
from search.front import hypervolume, non_dominated, pick
from search.noise import accuracy_differences, differences, without_copies
from search.record import Record, losses
from search.storage.working import url_of
from search.store import Records, Store
from search.study import Constraints, StudyConfig, parse_study
from search.tasks.accuracy import further_metrics, shown

Member = dict[str, Any]
_NO_DOUBT: Member = {"ties": [], "rivals": []}  # the baseline is compared with, not chosen
ROUNDING = 1e-9  # 0.585 - 0.575 is 0.010000000000000009 in floating point


def open_study(folder: Path) -> tuple[StudyConfig, Store]:
    """The study in ``folder`` and its records. Raises UserError if there is none."""
    path = folder / "study.yaml"
    if not path.is_file():
        raise UserError(f"{url_of(folder) or folder} is no study folder: it has no study.yaml")
    import yaml

    return parse_study(yaml.safe_load(path.read_text(encoding="utf-8")), where=str(path)), Store(folder)


def within(config: StudyConfig, limits: Constraints) -> StudyConfig:
    """``config`` with its own limits and these: of two for the same thing the tighter one.

    What it keeps out can have hidden what is on the front then: a smaller file behind one that is faster, say.
    """
    tighter = {
        name: limit if own is None else min(own, limit)
        for name, limit in limits
        for own in [getattr(config.constraints, name)]
        if limit is not None
    }
    return config.model_copy(update={"constraints": config.constraints.model_copy(update=tighter)})


def front_records(config: StudyConfig, store: Records) -> list[Record]:
    """The finished records that keep the constraints and that no other of them dominates, fastest first.

    Of several that are the same the smallest is there (``search.noise.without_copies``).
    """
    kept = kept_records(config, store)
    points = [losses(record.values(config.objectives) or (), config.objectives) for record in kept]
    mask = non_dominated(points) if points else []
    front = without_copies([r for r, chosen in zip(kept, mask, strict=True) if chosen], config.objectives)
    return sorted(front, key=lambda record: record.measurement.latency.ratio if record.measurement else 0.0)


def kept_records(config: StudyConfig, store: Records) -> list[Record]:
    """The finished records that keep the constraints, oldest first."""
    return [record for record in store.searched if feasible(record, store.baseline, config)]


def summary(config: StudyConfig, store: Store, folder: Path) -> dict[str, Any]:
    """The whole result: what was found on the main target, on the others, how far they agree, and counts and host."""
    if store.baseline is None:
        raise UserError(f"{folder} has no baseline yet; go on with `python -m search resume {folder}`")
    records = Finals(folder).applied(store)
    names = [target.name for target in config.other_targets]
    others = {name: Finals(folder, name).applied(seen_from(store, name)) for name in names}
    host = folder / "host.json"
    return {
        **found_on(config, records),
        "records": len(store.searched),
        "states": store.states(),
        "host": json.loads(host.read_text(encoding="utf-8")) if host.is_file() else None,
        "target": config.target.name,
        "others": {name: found_on(config, own) for name, own in others.items() if own.baseline is not None},
        "agreement": agreement({config.target.name: records} | others),
    }


def found_on(config: StudyConfig, records: Records) -> dict[str, Any]:
    """What accuracy is, the baseline, the front, what noise leaves open, and the hypervolume, on one target.

    The hypervolume is in units of accuracy times ratios to the baseline: the volume between the front and the
    point of accuracy 0 at the baseline's own latency and size.
    """
    front = front_records(config, records)
    corner = [0.0 if objective == "accuracy" else 1.0 for objective in config.objectives]
    points = [losses(record.values(config.objectives) or (), config.objectives) for record in front]
    baseline = records.baseline
    assert baseline and baseline.measurement and baseline.measurement.accuracy
    doubts, undecided = _doubts(config, records, front)
    return {
        "metric": baseline.measurement.accuracy.metric,
        "baseline": {**member(baseline, baseline), **_NO_DOUBT},
        "front": [{**member(record, baseline), **doubts[record.id]} for record in front],
        "undecided": undecided,
        "hypervolume": hypervolume(points, corner) if points else 0.0,
    }


def member(record: Record, baseline: Record) -> Member:
    """One record as a flat object; accuracies are fractions, sizes bytes, times milliseconds.

    Intervals are of 95 %; that of the drop is of the difference on the same images. They are None where not known.
    """
    measured, reference = record.measurement, baseline.measurement
    assert measured and measured.accuracy and reference and reference.accuracy and record.artifact
    latency, accuracy = measured.latency, measured.accuracy
    drop = reference.accuracy.value - accuracy.value
    [[half]] = accuracy_differences([reference.accuracy], [accuracy])[1]
    return {
        "record_id": record.id,
        "accuracy": accuracy.value,
        "accuracy_ci": None if accuracy.low is None else [accuracy.low, accuracy.high],
        "accuracy_drop": drop,
        "accuracy_drop_ci": None if accuracy.low is None else [drop - float(half), drop + float(half)],
        **further_metrics(accuracy),
        "latency_ms_p50": latency.p50_ms,
        "latency_ms_p95": latency.p95_ms,
        "latency_ms_quiet": latency.quiet_ms,
        "latency_batch": latency.batch,
        "fps": latency.fps,
        "latency_ratio": latency.ratio,
        "latency_ratio_ci": [latency.ratio_low, latency.ratio_high],
        "size_bytes": measured.size_bytes,
        "size_ratio": measured.size_ratio,
        "parameters": measured.parameters,
        "flops": measured.flops,
        "test": shown(measured.test) if measured.test else None,
        "recipe": record.recipe.model_dump(mode="json"),
        "artifact": record.artifact.path,
        "sha256": record.artifact.sha256,
        "host": measured.host,
    }


def _doubts(config: StudyConfig, records: Records, front: list[Record]) -> tuple[dict[str, Member], list[str]]:
    """What noise leaves open: for each member ``ties``, which are told apart from it in no objective, and ``rivals``,
    which are surely better in one and surely worse in none; and the records off the front that no member surely
    dominates.
    """
    kept = kept_records(config, records)
    if not front:
        return {}, []
    found = differences(kept, front, config.objectives)
    ids = np.array([record.id for record in kept])
    doubts = {
        record.id: {
            "ties": [name for name in ids[ties].tolist() if name != record.id],
            "rivals": ids[rivals].tolist(),
        }
        for record, ties, rivals in zip(front, found.ties.T, found.may_dominate.T, strict=True)
    }
    open_ids = ids[~found.surely_dominated.any(axis=1)].tolist()
    return doubts, [name for name in open_ids if name not in doubts]


def choose(result: dict[str, Any], name: str) -> Member:
    """The member of the front that a pick's name stands for; see ``search.front.pick``."""
    front = result["front"]
    if not front:
        raise UserError("the front is empty: no record is complete and within the constraints and limits")
    index = pick(
        name,
        accuracy=[m["accuracy"] for m in front],
        latency=[m["latency_ratio"] for m in front],
        size=[m["size_ratio"] for m in front],
        baseline_accuracy=result["baseline"]["accuracy"],
    )
    return front[index]


def feasible(record: Record, baseline: Record | None, config: StudyConfig) -> bool:
    """Whether a record is finished, was measured where the baseline was, and keeps the study's constraints."""
    if record.values(config.objectives) is None or baseline is None or baseline.measurement is None:
        return False
    measured, limits = record.measurement, config.constraints
    assert measured and measured.accuracy and baseline.measurement.accuracy
    if measured.host != baseline.measurement.host:
        return False
    drop = baseline.measurement.accuracy.value - measured.accuracy.value
    return all(
        limit is None or value <= limit + ROUNDING
        for value, limit in (
            (drop, limits.max_accuracy_drop),
            (measured.latency.ratio, limits.max_latency_ratio),
            (measured.latency.quiet_ms, limits.max_latency_ms),
            (measured.size_bytes / 1e6, limits.max_size_mb),
        )
    )
