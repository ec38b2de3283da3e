"""The embedded demonstrations: real handwritten digits, a YOLO trained on them on the spot, and a real search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from search.digit_scans import make_digit_scans
from search.digits import IMAGE_SIZE, make_digits
from search.errors import UserError
from search.study import BaselineTraining, Budget, StudyConfig
from search.target import Target
from search.tasks.kind import TaskName

TRIALS: dict[TaskName, int] = {"detect": 12, "classify": 18}
MODELS: dict[TaskName, str] = {"detect": "yolov8n.yaml", "classify": "yolov8n-cls.yaml"}

# Found by trial: a mirrored 2 is no digit, and small strokes do not survive strong colour or scale changes.
TRAIN_SETTINGS: dict[str, bool | int | float | str] = {
    "mosaic": 0.0,
    "fliplr": 0.0,
    "hsv_h": 0.0,
    "hsv_s": 0.2,
    "hsv_v": 0.2,
    "scale": 0.2,
}


def demo_study(
    out: Path, *, task: TaskName = "detect", model: str | None = None, trials: int, seed: int
) -> StudyConfig:
    """The demo's study, with its data set made in ``out`` (or found there from a run before).

    ``model`` is an architecture file of the task, the one in ``MODELS`` if not given.

    Raises:
        UserError: it is none; the demo trains its baseline on the spot.
    """
    if model is not None and Path(model).suffix not in (".yaml", ".yml"):
        raise UserError(f"model: the demo trains an architecture, such as yolo11n.yaml; {model} is none")
    return DEMOS[task](out, model or MODELS[task], trials, seed)


def _detect(out: Path, model: str, trials: int, seed: int) -> StudyConfig:
    return StudyConfig(
        name="demo",
        model=model,
        data=make_digits(out / "digits", seed=seed),
        image_size=IMAGE_SIZE,
        space="demo",
        target=Target(runs=60),
        budget=Budget(trials=trials),
        seed=seed,
        baseline=BaselineTraining(epochs=30, batch=16, lr=3e-3),
        train_settings=TRAIN_SETTINGS,
    )


def _classify(out: Path, model: str, trials: int, seed: int) -> StudyConfig:
    return StudyConfig(
        name="demo-classify",
        model=model,
        data=make_digit_scans(out / "digits", seed=seed),
        image_size=64,
        space="demo-classify",
        target=Target(runs=60),
        objectives=("accuracy", "latency", "size"),  # at a tenth of a millisecond the files differ more in size
        budget=Budget(trials=trials),
        seed=seed,
        baseline=BaselineTraining(epochs=4, batch=32, lr=2e-3),
        train_settings={**TRAIN_SETTINGS, "auto_augment": "", "erasing": 0.0},
    )


DEMOS: dict[TaskName, Callable[[Path, str, int, int], StudyConfig]] = {"detect": _detect, "classify": _classify}
