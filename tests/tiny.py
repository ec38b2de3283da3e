"""Stand-ins for a study's baseline and data: a YOLOv8 of under a million weights, and pictures of digits at 64 px."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from ultralytics.nn.modules import Conv, Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT, ROOT, YAML

from search.data import DataSet, make_view, read_data
from search.digits import make_digits

SIZE = 64  # px, side of the images and of the models' input
CLASSES = 10
ANCHORS = sum((SIZE // stride) ** 2 for stride in (8, 16, 32))


def tiny_model(*, seed: int = 0, width: float = 0.125) -> DetectionModel:
    """An untrained YOLOv8 for the digits, whose channels all differ and whose scores are spread between 0 and 1.

    ``width`` 0.125 makes every layer half as wide as YOLOv8n's, which has 0.25. Its weights are frozen, as those
    of a checkpoint of Ultralytics are.
    """
    torch.manual_seed(seed)
    content: dict[str, Any] = YAML.load(ROOT / "cfg/models/v8/yolov8.yaml")
    content |= {"nc": CLASSES, "scale": "n", "scales": {"n": [0.33, width, 1024]}}
    model = DetectionModel(content, verbose=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)  # pyright: ignore[reportOptionalMemberAccess]
            module.running_var.uniform_(0.5, 1.5)  # pyright: ignore[reportOptionalMemberAccess]
        if isinstance(module, Detect):
            for branch in (*module.cv2, *module.cv3):
                branch[-1].bias.data.uniform_(-2, 2)
    model.names = {label: str(label) for label in range(CLASSES)}
    model.args = dict(DEFAULT_CFG_DICT)
    return model.eval().requires_grad_(False)
