"""One trial: a trunk's recipe in, one record for each of its leaves out.

Latency comes first. The untrained model is exported and timed in every precision; leaves that cannot join the
front are screened, and if none is left nothing is trained. ``try_recipe`` knows nothing of Ray; ``trainable`` is
its thin edge.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from search.measure.latency import Latency
from search.record import Artifact, Measurement, Record
from search.screen import Bar, why_screened
from search.study import Target
from spaces.recipe import Recipe

MeasureLatency = Callable[[Path, int], Latency]  # (file, runs)


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
    baseline_size: int
    host: str
    trial_minutes: float | None = None


def try_recipe(task: Task, place: Workplace, measure_latency: MeasureLatency) -> list[Record]:
    """Tries every leaf of one trunk and returns their records, in order; artifacts are in place before.

    A leaf that fails costs that leaf alone and is recorded with its reason. What fails for the trunk is raised.
    """
    from search import pipeline

    trunk, seconds = task.leaves[0], {}
    deadline = time.monotonic() + 60 * place.trial_minutes if place.trial_minutes else math.inf

    def on_epoch(done: int, total: int) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"over {place.trial_minutes:g} minutes after {done} of {total} epochs")

    with tempfile.TemporaryDirectory(dir=place.folder / "cache") as scratch:
        with _timed(seconds, "shape"):
            model = pipeline.shape(trunk, place.inputs)
            facts = pipeline.facts(model, trunk.image_size)
        screened: list[Record] = []
        if task.bar is not None and trunk.finetune.kind != "none":
            with _timed(seconds, "screen"):
                screened = _screen(task, place, model, Path(scratch) / "untrained", measure_latency, facts)
        left = [leaf for leaf in task.leaves if leaf.id not in {record.id for record in screened}]
        if left:
            with _timed(seconds, "train"):
                model = _trained(model, trunk, place, on_epoch)
            with _timed(seconds, "measure"):
                finished = [
                    _finish(leaf, model, place, Path(scratch) / "trained", measure_latency, facts) for leaf in left
                ]
        else:
            finished = []
    records = {record.id: record.model_copy(update={"seconds": seconds}) for record in [*screened, *finished]}
    return [records[leaf.id] for leaf in task.leaves]


def trainable(config: dict[str, Any], place: Workplace) -> None:
    """Ray Tune's function: tries the task in ``config`` and reports its records in one result."""
    from ray import tune

    from search.measure.bench import remote_latency

    task = Task.model_validate_json(config["task"])
    records = try_recipe(task, place, remote_latency(place.baseline_onnx, place.target))
    tune.report({"records": json.dumps([record.model_dump(mode="json") for record in records])})


def write_artifact(record_id: str, file: Path, recipe: Recipe, folder: Path) -> Artifact:
    """Moves ``file`` into the study with its recipe beside it, and describes it. The folder appears whole."""
    target = folder / "artifacts" / record_id
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        new = Path(temporary) / record_id
        new.mkdir()
        shutil.copy2(file, new / "model.onnx")
        (new / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        if target.exists():  # left by a trial that was killed before its record was written
            shutil.rmtree(target)
        os.replace(new, target)
    content = (target / "model.onnx").read_bytes()
    return Artifact(
        path=f"artifacts/{record_id}/model.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )


def measure_artifact(
    file: Path, recipe: Recipe, place: Workplace, measure_latency: MeasureLatency, facts: dict[str, int]
) -> Measurement:
    """Accuracy on the validation split, latency and size of the file."""
    from search.measure.accuracy import measure_accuracy

    data, threads = place.inputs.data, place.inputs.threads
    accuracy = measure_accuracy(file, data, image_size=recipe.image_size, threads=threads)
    if not math.isfinite(accuracy.map50_95):
        raise FloatingPointError("the accuracy is not a number")
    return _measurement(file, place, facts, measure_latency(file, place.target.runs), accuracy)


def _measurement(file: Path, place: Workplace, facts: dict[str, int], latency: Latency, accuracy: Any) -> Measurement:
    size = file.stat().st_size
    ratio = size / (place.baseline_size or size)
    return Measurement(
        accuracy=accuracy,
        latency=latency,
        size_bytes=size,
        size_ratio=ratio,
        parameters=facts["parameters"],
        flops=facts["flops"],
        host=place.host,
    )


def _screen(
    task: Task,
    place: Workplace,
    model: Any,
    folder: Path,
    measure_latency: MeasureLatency,
    facts: dict[str, int],
) -> list[Record]:
    """Records of the leaves that cannot join the front, timed on untrained weights."""
    from search import pipeline

    assert task.bar is not None
    records: list[Record] = []
    for leaf in task.leaves:
        file = pipeline.write_leaf(model, leaf, place.inputs, folder=folder / leaf.id)
        measured = _measurement(file, place, facts, measure_latency(file, max(20, place.target.runs // 3)), None)
        reason = why_screened(
            measured.latency, size_bytes=measured.size_bytes, size_ratio=measured.size_ratio, bar=task.bar
        )
        if reason is not None:
            records.append(Record(id=leaf.id, recipe=leaf, state="screened", reason=reason, measurement=measured))
    return records


def _finish(
    leaf: Recipe,
    model: Any,
    place: Workplace,
    folder: Path,
    measure_latency: MeasureLatency,
    facts: dict[str, int],
) -> Record:
    """The leaf's file, measured and in its place; a failure is this leaf's alone."""
    from search import pipeline

    try:
        file = pipeline.write_leaf(model, leaf, place.inputs, folder=folder / leaf.id)
        measurement = measure_artifact(file, leaf, place, measure_latency, facts)
        artifact = write_artifact(leaf.id, file, leaf, place.folder)
        text = measurement.model_dump_json(indent=2)
        (place.folder / "artifacts" / leaf.id / "measurement.json").write_text(text, encoding="utf-8")
    except (RuntimeError, ValueError, OSError, FloatingPointError) as error:
        traceback.print_exc()
        return Record(id=leaf.id, recipe=leaf, state="failed", reason=f"{type(error).__name__}: {error}"[:500])
    return Record(id=leaf.id, recipe=leaf, state="complete", artifact=artifact, measurement=measurement)


def _trained(model: Any, trunk: Recipe, place: Workplace, on_epoch: Callable[[int, int], None]) -> Any:
    """The trained trunk, from the study's cache if a trial that was cut off left it there."""
    import torch

    from search import pipeline

    if trunk.finetune.kind == "none":
        return model
    path = place.folder / "cache" / f"{trunk.trunk_id}.pt"
    if path.is_file():
        return torch.load(path, weights_only=False)  # written below, by this study
    trained = pipeline.train(model, trunk, place.inputs, on_epoch)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(trained, temporary)
    os.replace(temporary, path)
    return trained


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[step] = round(time.monotonic() - start, 3)
