"""A classifier of a hundred thousand weights in the place of YOLOv8n-cls, for the digits."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules import Classify
from ultralytics.nn.tasks import ClassificationModel
from ultralytics.utils import DEFAULT_CFG_DICT, ROOT, YAML

from tests.tiny import CLASSES

SIDE = 32  # px; a digit's picture is as large, so that nothing is resized


def tiny_classifier(*, seed: int = 0) -> ClassificationModel:
    """An untrained YOLOv8-cls, half as wide as YOLOv8n-cls and 160 channels in the head, whose answers vary.

    The weights are frozen, as those of Ultralytics' checkpoints are.
    """
    torch.manual_seed(seed)
    content: Any = YAML.load(str(ROOT / "cfg/models/v8/yolov8-cls.yaml"))
    content |= {"nc": CLASSES, "scale": "n", "scales": {"n": [0.33, 0.125, 1024]}}
    model = ClassificationModel(content, verbose=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.02, 0.06)  # small, so that the signal does not fade from layer to layer
    head(model).linear.weight.data.mul_(8)  # so that the answers are not all alike
    names = {label: str(label) for label in range(CLASSES)}
    for name, value in {"names": names, "args": dict(DEFAULT_CFG_DICT), "task": "classify"}.items():
        setattr(model, name, value)
    return model.eval().requires_grad_(False)


def head(model: nn.Module) -> Classify:
    """The head of a classifier."""
    (found,) = [module for module in model.modules() if isinstance(module, Classify)]
    return found
