"""A trial on Ray Tune: what runs in a worker, and how its records and files reach the driver."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from socket import gethostname
from typing import Any

import ray
from ray import tune

from search.cores import training_cores
from search.depot import standing
from search.errors import FaultError
from search.live.board import telling
from search.measure.bench import remote_latency
from search.measure.parcel import pack
from search.measure.target_checks import lacking
from search.record import Record
from search.target import Target
from search.trial import Task, reason_unless_fault, try_recipe
from search.workplace import Workplace


def trainable(config: dict[str, Any], place: Workplace) -> None:
    """Ray Tune's function: tries the task in ``config`` and reports its records in one result, with their artifacts.

    Before that it reports at every rung what they are if it is stopped there. What fails is reported too, and not
    raised: only a worker that dies is tried again. What is no recipe's fault is reported as the study's.
    """
    targets = (place.target, *place.others)
    keep_to_cores(targets)
    try:
        check_here(targets)
        here = standing(place)
        with here.scratch() as out:
            records = _tried(Task.model_validate_json(config["task"]), here, out)
            _deliver(records, out, by_path=place.visible)
    except FaultError as fault:
        tune.report({"fault": str(fault)})


def keep_to_cores(targets: tuple[Target, ...]) -> None:
    """Keeps this thread, and those that it starts, off the cores on which this node measures for ``targets``."""
    if cores := _cores_here(targets):
        os.sched_setaffinity(0, cores)


@lru_cache(maxsize=1)
def _cores_here(targets: tuple[Target, ...]) -> list[int]:
    """The cores for trials, found before any thread keeps to them; empty, which is all, if none is measured on."""
    here = ray.get_runtime_context().get_node_id()
    offered = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return training_cores([target for target in targets if target.slot in offered])


@lru_cache(maxsize=1)
def check_here(targets: tuple[Target, ...]) -> None:
    """Refuses to try anything on a machine, that joined later, where files for ``targets`` do not run.

    Raises:
        FaultError: what it lacks.
    """
    if reason := lacking(targets):
        raise FaultError(f"node {gethostname()} runs trials, but {reason}; or keep trials off it with resources.custom")


def _tried(task: Task, place: Workplace, out: Path) -> list[Record]:
    """The records of ``task``, failed ones if it breaks."""
    latency, *others = (
        remote_latency(place.baseline(target), target, place.hosts[target.name])
        for target in (place.target, *place.others)
    )
    elsewhere = dict(zip((target.name for target in place.others), others, strict=True))
    try:
        with telling(task.leaves[0].trunk_id) as on_step:
            return try_recipe(task, place, latency, _report_rung, elsewhere, on_step, out)
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs this trial alone
        reason = reason_unless_fault(error, place)
        return [Record(id=leaf.id, recipe=leaf, state="failed", reason=reason) for leaf in task.leaves]


def _report_rung(records: list[Record]) -> None:
    tune.report({"rung": _as_json(records)})


def _deliver(records: list[Record], out: Path, *, by_path: bool) -> None:
    """Reports the records with what is below ``out``.

    Tune copies a checkpoint to its storage, which is beside the study; from where that is not seen, the files go in
    the result itself.
    """
    result: dict[str, Any] = {"records": _as_json(records)}
    if all(record.artifact is None for record in records):
        tune.report(result)
    elif by_path:
        tune.report({**result, "delivered": "checkpoint"}, checkpoint=tune.Checkpoint.from_directory(str(out)))
    else:
        tune.report({**result, "delivered": pack(out)})


def _as_json(records: list[Record]) -> str:
    return json.dumps([record.model_dump(mode="json") for record in records])
