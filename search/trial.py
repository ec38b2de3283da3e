"""One trial: a trunk's recipe in, one record for each of its leaves out.

Latency comes first. The untrained model is exported and timed in every precision; leaves that cannot join the
front are screened, and if none is left nothing is trained. ``try_recipe`` knows nothing of Ray; ``trainable`` is
its thin edge. Torch is imported by the worker that runs a trial, not by the driver.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from search.artifact import Gauge, MeasureLatency, write_artifact
from search.record import Record
from search.screen import Bar, why_screened
from search.study import Target
from spaces.recipe import Recipe


class Task(BaseModel):
    """What the driver asks of a worker; all that changes from trial to trial."""

    model_config = ConfigDict(frozen=True)

    leaves: tuple[Recipe, ...]  # all of one trunk
    bar: Bar | None = None  # None: measure everything, screen nothing


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where trials of a study work; the same for all of them. Paths are absolute."""

    folder: Path
    inputs: Any  # search.pipeline.Inputs; not named here, so that the driver need not import torch
    target: Target
    baseline_onnx: Path
    host: str
    trial_minutes: float | None = None

    def gauge(self, model: Any, image_size: int, measure_latency: MeasureLatency) -> Gauge:
        """What measures the files that are made of ``model``."""
        from search.pipeline import facts

        return Gauge(
            measure_latency=measure_latency,
            runs=self.target.runs,
            data=self.inputs.data,
            threads=self.inputs.threads,
            baseline_size=self.baseline_onnx.stat().st_size,
            host=self.host,
            **facts(model, image_size),
        )


def try_recipe(task: Task, place: Workplace, measure_latency: MeasureLatency) -> list[Record]:
    """Tries every leaf of one trunk and returns their records, in order; artifacts are in place before.

    A leaf that fails costs that leaf alone and is recorded with its reason. What fails for the trunk is raised.
    """
    from search.pipeline import shape

    trunk = task.leaves[0]
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=place.folder / "cache") as scratch:
        with _timed(seconds, "shape"):
            model = shape(trunk, place.inputs)
            gauge = place.gauge(model, trunk.image_size, measure_latency)
        with _timed(seconds, "screen"):
            records = _screen(task, model, gauge, place, Path(scratch) / "untrained")
        left = [leaf for leaf in task.leaves if leaf.id not in records]
        if left:
            with _timed(seconds, "train"):
                model = trained_trunk(model, trunk, place)
            with _timed(seconds, "measure"):
                records |= {leaf.id: _finish(leaf, model, gauge, place, Path(scratch) / "trained") for leaf in left}
    return [records[leaf.id].model_copy(update={"seconds": seconds}) for leaf in task.leaves]


def trainable(config: dict[str, Any], place: Workplace) -> None:
    """Ray Tune's function: tries the task in ``config`` and reports its records in one result."""
    from ray import tune

    from search.measure.bench import remote_latency

    task = Task.model_validate_json(config["task"])
    records = try_recipe(task, place, remote_latency(place.baseline_onnx, place.target))
    tune.report({"records": json.dumps([record.model_dump(mode="json") for record in records])})


def _screen(task: Task, model: Any, gauge: Gauge, place: Workplace, folder: Path) -> dict[str, Record]:
    """Records of the leaves that cannot join the front, by id, timed on untrained weights."""
    from search.pipeline import write_leaf

    records: dict[str, Record] = {}
    if task.bar is None or not task.leaves[0].trains:  # measuring it all costs no more than screening
        return records
    for leaf in task.leaves:
        measured = gauge.quick(write_leaf(model, leaf, place.inputs, folder=folder / leaf.id))
        reason = why_screened(
            measured.latency, size_bytes=measured.size_bytes, size_ratio=measured.size_ratio, bar=task.bar
        )
        if reason is not None:
            records[leaf.id] = Record(
                id=leaf.id, recipe=leaf, state="screened", reason=reason, measurement=measured
            )  # fmt: skip
    return records


def _finish(leaf: Recipe, model: Any, gauge: Gauge, place: Workplace, folder: Path) -> Record:
    """The leaf's file, measured and in its place; a failure is this leaf's alone."""
    from search.pipeline import write_leaf

    try:
        file = write_leaf(model, leaf, place.inputs, folder=folder / leaf.id)
        measurement = gauge.full(file, leaf)
        artifact = write_artifact(leaf.id, file, recipe=leaf, measurement=measurement, folder=place.folder)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base class
        traceback.print_exc()
        return Record(id=leaf.id, recipe=leaf, state="failed", reason=f"{type(error).__name__}: {error}"[:500])
    return Record(id=leaf.id, recipe=leaf, state="complete", artifact=artifact, measurement=measurement)


def trained_trunk(model: Any, trunk: Recipe, place: Workplace) -> Any:
    """The trained trunk, from the study's cache if a trial that was cut off left it there."""
    import torch

    from search.pipeline import train

    if not trunk.trains:
        return model
    path = place.folder / "cache" / f"{trunk.trunk_id}.pt"
    if path.is_file():
        return torch.load(path, weights_only=False)
    deadline = time.monotonic() + 60 * place.trial_minutes if place.trial_minutes else math.inf

    def on_epoch(done: int, total: int) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"over {place.trial_minutes:g} minutes after {done} of {total} epochs")

    trained = train(model, trunk, place.inputs, on_epoch)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(trained, temporary)
    os.replace(temporary, path)
    return trained


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Generator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[step] = round(time.monotonic() - start, 3)
