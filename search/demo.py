"""The embedded demonstration: real handwritten digits, a YOLOv8n trained on them on the spot, and a real search."""

from __future__ import annotations

from pathlib import Path

from search.digits import IMAGE_SIZE, make_digits
from search.study import BaselineTraining, Budget, StudyConfig, Target

# Found by trial: a mirrored 2 is no digit, and small strokes do not survive strong colour or scale changes.
TRAIN_SETTINGS: dict[str, bool | int | float | str] = {
    "mosaic": 0.0,
    "fliplr": 0.0,
    "hsv_h": 0.0,
    "hsv_s": 0.2,
    "hsv_v": 0.2,
    "scale": 0.2,
}


def demo_study(out: Path, *, trials: int, seed: int) -> StudyConfig:
    """The demo's study, with its data set made in ``out`` (or found there from a run before)."""
    data = make_digits(out / "digits", seed=seed)
    return StudyConfig(
        name="demo",
        model="yolov8n.yaml",
        data=data,
        image_size=IMAGE_SIZE,
        space="demo",
        target=Target(runs=60),
        budget=Budget(trials=trials),
        seed=seed,
        baseline=BaselineTraining(epochs=30, batch=16, lr=3e-3),
        train_settings=TRAIN_SETTINGS,
    )
