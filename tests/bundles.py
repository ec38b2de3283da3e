"""Study folders of one pick whose file is real, and pictures for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from search.bundle.make import make_bundle
from search.bundle.manifest import Place
from search.record import Artifact, Record
from search.stages.export import export_onnx
from search.store import Store
from search.tasks.accuracy import Accuracy, ClassificationAccuracy
from spaces.recipe import Export, Int8Static, Recipe
from tests.fakes import make_baseline, make_record
from tests.tiny import sha256


def picture(seed: int, height: int = 150, width: int = 200) -> Image.Image:
    """Coarse noise, on which the tiny models find something."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse.repeat(10, axis=0).repeat(10, axis=1))


def make_study(folder: Path, model: Path, *, size: int, task: str = "detect", **changes: Any) -> Path:
    """A study with a baseline and one record, whose file is ``model``; its data has three pictures."""
    record = make_record(Recipe(image_size=size, quantize=Int8Static()), accuracy=0.6, latency=0.4, size=0.2)
    baseline = make_baseline(size)
    if task == "classify":
        top: Accuracy = ClassificationAccuracy(split="val", images=3, top1=0.6, top5=0.9, low=0.5, high=0.7)
        record, baseline = (_with_accuracy(one, top) for one in (record, baseline))
    assert record.artifact
    place = folder / record.artifact.path
    place.parent.mkdir(parents=True)
    place.write_bytes(model.read_bytes())
    artifact = Artifact(path=record.artifact.path, sha256=sha256(place), size_bytes=place.stat().st_size)
    content = {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": size, **changes}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    (folder / "host.json").write_text('{"id": "host", "cpu": "a processor", "usable_cores": 2}')
    Store(folder).append([baseline, record.model_copy(update={"artifact": artifact})])
    for split, seed in (("train", 10), ("val", 11), ("val", 12)):
        images = folder / "data" / "images" / split
        images.mkdir(parents=True, exist_ok=True)
        picture(seed).save(images / f"{seed}.png")
    return folder


def _with_accuracy(record: Record, accuracy: Accuracy) -> Record:
    assert record.measurement
    return record.model_copy(update={"measurement": record.measurement.model_copy(update={"accuracy": accuracy})})


def bundle_of(model: Any, folder: Path, *, size: int, task: str = "detect", place: Place = "edge") -> Path:
    """The bundle of a study, in ``folder``, whose pick is ``model`` (a PyTorch module) in FP32."""
    file = folder / "model.onnx"
    export_onnx(model, Export(), image_size=size, path=file)
    return make_bundle(make_study(folder / "study", file, size=size, task=task), pick="recommended", place=place)
