"""The embedded demonstration: real handwritten digits, a YOLOv8n trained on them on the spot, and a real search."""

from __future__ import annotations

from pathlib import Path

from search.digits import make_digits
from search.study import BaselineTraining, Budget, Resources, StudyConfig

IMAGE_SIZE = 128  # pixels
TRAIN_SETTINGS: dict[str, bool | int | float | str] = {
    "fliplr": 0.0,
    "mosaic": 0.0,
}  # a mirrored 2 is no digit


def demo_study(out: Path, *, trials: int, seed: int) -> StudyConfig:
    """The demo's study in ``out``, with its data set made beside it."""
    data = make_digits(out.parent / f".digits-{seed}", seed=seed)
    return StudyConfig(
        name="demo",
        model="yolov8n.yaml",
        data=data,
        image_size=IMAGE_SIZE,
        space="demo",
        budget=Budget(trials=trials),
        seed=seed,
        resources=Resources(cpus_per_trial=1),
        baseline=BaselineTraining(epochs=30, batch=16, lr=2e-3),
        train_settings=TRAIN_SETTINGS,
    )
