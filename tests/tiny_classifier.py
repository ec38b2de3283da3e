"""A classifier of half a million weights in the place of YOLOv8n-cls, for the digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from ultralytics.nn.modules import Classify
from ultralytics.nn.tasks import ClassificationModel
from ultralytics.utils import DEFAULT_CFG_DICT, ROOT, YAML

from tests.tiny import CLASSES, noise

COUNTS = {"train": 80, "val": 40, "test": 30}  # scans
SIDE = 32  # px; a digit's picture is as large, so that nothing is resized


def tiny_classifier(*, seed: int = 0) -> ClassificationModel:
    """An untrained YOLOv8-cls, half as wide as YOLOv8n-cls, whose answers depend on the picture.

    The weights are frozen, as those of Ultralytics' checkpoints are.
    """
    torch.manual_seed(seed)
    content: Any = YAML.load(str(ROOT / "cfg/models/v8/yolov8-cls.yaml"))
    content |= {"nc": CLASSES, "scale": "n", "scales": {"n": [0.33, 0.125, 1024]}}
    model = ClassificationModel(content, verbose=False)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.data.uniform_(0.2, 0.6)  # small, so that activations are near linear and small errors stay small
        norm.bias.data.uniform_(-0.2, 0.2)
        norm.momentum = None  # statistics of all that was seen
    with torch.no_grad():
        model.train()(torch.from_numpy(np.concatenate(noise(16, size=SIDE))))
    for norm in norms:
        norm.momentum = 0.03
    names = {label: str(label) for label in range(CLASSES)}
    for name, value in {"names": names, "args": dict(DEFAULT_CFG_DICT), "task": "classify"}.items():
        setattr(model, name, value)
    return model.eval().requires_grad_(False)


def head(model: nn.Module) -> Classify:
    """The head of a classifier."""
    (found,) = [module for module in model.modules() if isinstance(module, Classify)]
    return found


def fit_last(model: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """``model`` with a last layer that tells these pictures apart, by ridge regression of their classes, in place."""
    found: list[Tensor] = []
    handle = head(model).pool.register_forward_hook(lambda module, inputs, output: found.append(output.flatten(1)))
    with torch.no_grad():
        model(images)
    handle.remove()
    features, linear = found[0] - found[0].mean(0), head(model).linear
    gram = features @ features.T + 1e-3 * len(features) * torch.eye(len(features))
    weight = features.T @ torch.linalg.solve(gram, functional.one_hot(labels, CLASSES).float())
    linear.weight.data = 10 * weight.T.contiguous()
    linear.bias.data = -linear.weight.data @ found[0].mean(0)
    return model
