"""A real study of a classifier on real Ray: digits at 32 px, a YOLOv8n-cls trained for one epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from PIL import Image

from search.digit_scans import make_digit_scans
from search.digits import make_digits
from tests.integration.test_study import search
from tests.tiny import one_thread

SPACE = """
image_size: 32
activation: relu
prune:
  - {kind: channels, ratio: 0.5}
finetune:
  - {kind: train, epochs: 1}
distill:
  - {kind: logit}
quantize: [{kind: fp32}, {kind: int8, images: 4}]
"""


def make_study(folder: Path, **changes: Any) -> Path:
    data = make_digit_scans(folder / "scans", counts={"train": 64, "val": 40, "test": 40})
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    content = {
        "name": "tiny",
        "model": "yolov8n-cls.yaml",
        "data": str(data),
        "image_size": 32,
        "space": str(folder / "space.yaml"),
        "target": {"runs": 10},
        "budget": {"trials": 1},
        "baseline": {"epochs": 1},
        "final": None,
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def counted(file: Path, folder: Path) -> float:
    """Top-1 by numpy."""
    session = onnxruntime.InferenceSession(str(file), one_thread(), providers=["CPUExecutionProvider"])
    right: list[bool] = []
    for path in folder.glob("*/*.png"):
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
        right.append(int(np.asarray(session.run(None, {"images": pixels})[0]).argmax()) == int(path.parent.name))
    return float(np.mean(right))


def test_a_classifier_goes_the_same_way_as_a_detector(tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = search("run", make_study(tmp_path), "--out", out).stdout
    assert "top-1" in printed and "mAP" not in printed
    result = json.loads(search("front", out, "--json").stdout)
    assert result["metric"] == "top-1"
    assert result["states"] == {"complete": 2}
    for member in [result["baseline"], *result["front"]]:
        file = out / member["artifact"]
        assert member["accuracy"] == pytest.approx(counted(file, tmp_path / "scans" / "val"))
        assert member["test"]["top1"] == pytest.approx(counted(file, tmp_path / "scans" / "test"))
        assert member["accuracy"] <= member["top5"] <= 1
    assert "| top-1 |" in (out / "report.md").read_text(encoding="utf-8")
    file = out / result["front"][0]["artifact"]
    measured = json.loads(search("measure", file, "--data", tmp_path / "scans", "--runs", "10", "--json").stdout)
    assert (measured["metric"], measured["accuracy"]) == ("top-1", pytest.approx(result["front"][0]["accuracy"]))


def test_models_and_data_of_different_tasks_are_refused(tmp_path: Path) -> None:
    def refused(**changes: Any) -> str:
        done = search("run", make_study(tmp_path, **changes), "--out", tmp_path / "out", check=False)
        assert done.returncode == 2
        return done.stderr

    boxes = make_digits(tmp_path / "boxes", image_size=64, counts={"train": 1, "val": 1, "test": 1})
    assert "yolov8n.yaml is for detection, but" in refused(model="yolov8n.yaml")
    assert "yolov8n-cls.yaml is for classification, but" in refused(data=str(boxes))
    assert "yolov8n-seg.yaml is a segment model; only detection and classification" in refused(model="yolov8n-seg.yaml")
    assert "space detect-full: structure.depthwise.where=neck makes no sense" in refused(space="detect-full")
    assert not (tmp_path / "out" / "records.jsonl").exists()
