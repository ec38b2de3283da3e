"""One technique alone: its file measured right after the change, and its accuracy after the fine-tuning.

Runs in a worker process of the catalogue. What techniques share is done once: a measurement is kept under the hash of
the recipe that it was taken of, and so is the plainly fine-tuned trunk, on which every leaf is applied.
"""

from __future__ import annotations

import fcntl
import json
import math
import tempfile
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from search.artifact import MeasureLatency
from search.measure.accuracy import measure_accuracy
from search.measure.apart import Apart
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.store import write_atomically
from search.tasks.accuracy import shown, value_of
from search.trial import trained_trunk
from search.workplace import Workplace
from spaces.combine import epochs_of, plain_recipe, recipe_of
from spaces.recipe import NoDistill, NoFinetune, NoQat, Recipe
from spaces.techniques import Setting

BASELINE, FINETUNE = "baseline", "finetune"  # the rows of no technique: the model as it came, and only trained


class Row(BaseModel):
    """What one technique does by itself.

    ``size_ratio`` and ``latency_ratio`` (with its 95 % interval) are the changed file's over the plain FP32 export's;
    accuracies are mAP50-95 of the exported file on the validation split, right after the change and after ``epochs``
    of training. ``seconds`` is the wall time of the row. A technique that failed has an ``error`` and no values.
    """

    model_config = ConfigDict(frozen=True)

    technique: str
    size_ratio: float | None = None
    latency_ratio: float | None = None
    latency_ratio_ci: tuple[float, float] | None = None
    accuracy_after: float | None = None
    accuracy_finetuned: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    size_bytes: int | None = None
    parameters: int | None = None
    flops: int | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is asked: one technique, or one of the rows without any."""

    name: str
    setting: Setting
    place: Workplace


def measure_alone(task: Task) -> Row:
    """The row of one technique; a failure is in the row, not raised."""
    start = time.monotonic()
    try:
        row = _measured(task)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base class
        traceback.print_exc()
        row = Row(technique=task.name, error=f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
    return row.model_copy(update={"seconds": round(time.monotonic() - start, 1)})


def recipe_for(name: str, setting: Setting) -> Recipe:
    """The recipe of a row, fine-tuned but for the baseline's."""
    if name in (BASELINE, FINETUNE):
        return plain_recipe(setting, trained=name == FINETUNE)
    return recipe_of([name], setting)


def _measured(task: Task) -> Row:
    """Both measurements of ``task``, the second one only if its recipe trains."""
    recipe = recipe_for(task.name, task.setting)
    now = _once(f"after-{_untrained_id(recipe)}", task.place, lambda: _after(recipe, task.place))
    then: dict[str, Any] = {}
    if epochs_of(recipe):
        then = _once(f"finetuned-{recipe.id}", task.place, lambda: _finetuned(recipe, task))
    latency = now["latency"]
    return Row(
        technique=task.name,
        size_ratio=now["size_ratio"],
        latency_ratio=latency["ratio"],
        latency_ratio_ci=(latency["ratio_low"], latency["ratio_high"]),
        accuracy_after=value_of(now["accuracy"]),
        accuracy_finetuned=value_of(then) if then else None,
        epochs=epochs_of(recipe),
        size_bytes=now["size_bytes"],
        parameters=now["parameters"],
        flops=now["flops"],
    )


def _after(recipe: Recipe, place: Workplace) -> dict[str, Any]:
    """The measurement of the file of the changed and untrained model."""
    from search.pipeline import shape, write_leaf

    with _scratch(place) as folder:
        model = shape(recipe, place.inputs)
        gauge = place.gauge(model, recipe.image_size, _in_turn(place))
        file = write_leaf(model, recipe, place.inputs, folder=folder / "leaf")
        return gauge.full(file, recipe).model_dump(mode="json")


def _finetuned(recipe: Recipe, task: Task) -> dict[str, Any]:
    """The accuracy of the file of the trained model; its latency and size do not depend on the training."""
    from search.pipeline import shape, train, write_leaf

    place = task.place
    with _scratch(place) as folder:
        model = shape(recipe, place.inputs)
        if recipe.trunk_id == plain_recipe(task.setting, trained=True).trunk_id:
            with _alone(place, f"{recipe.trunk_id}"):  # others wait, and find it trained
                trained = trained_trunk(model, recipe, place)
        else:
            trained = train(model, recipe, place.inputs)
        file = write_leaf(trained, recipe, place.inputs, folder=folder / "leaf")
        accuracy = measure_accuracy(file, place.inputs.data, image_size=recipe.image_size)
    if not math.isfinite(accuracy.value):
        raise FloatingPointError("the accuracy after the fine-tuning is not a number")
    return shown(accuracy)


def _untrained_id(recipe: Recipe) -> str:
    """Names all of ``recipe`` that a model has before it is trained; techniques of training alone share it."""
    return recipe.model_copy(update={"finetune": NoFinetune(), "distill": NoDistill(), "qat": NoQat()}).id


def _once(name: str, place: Workplace, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` gives, from the work folder if it was measured before."""
    path = place.folder / "measured" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    with _alone(place, name):
        if not path.is_file():
            write_atomically(path, json.dumps(measure(), indent=2) + "\n")
        return json.loads(path.read_text(encoding="utf-8"))


def _in_turn(place: Workplace) -> MeasureLatency:
    """Times a file beside the baseline's, one at a time among all workers."""

    def measure(file: Path, effort: Effort) -> Latency:
        with Apart(place.target) as apart:
            return apart.measure(file, effort, baseline=place.baseline(place.target))

    return measure


@contextmanager
def _alone(place: Workplace, name: str) -> Generator[None]:
    """Waits until no other process is in a block of this name; the lock goes with the process."""
    with (place.folder / "cache" / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _scratch(place: Workplace) -> Generator[Path]:
    with tempfile.TemporaryDirectory(dir=place.folder / "cache") as folder:
        yield Path(folder)
