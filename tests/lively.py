"""A detector whose answers depend on the picture: the tiny one's hardly do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from tests.tiny import branches, noise, tiny_model


def lively_model(**options: Any) -> DetectionModel:
    """``tiny_model`` with activations of unit size on noise, and scores that follow them."""
    model = tiny_model(**options)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # statistics of all that was seen
        norm.weight.data.fill_(1)
    with torch.no_grad():
        model.train()(torch.from_numpy(np.concatenate(noise(16))))
    for norm in norms:
        norm.momentum = 0.03
    for scores in branches(model)[1]:
        scores.weight.data *= 5
    return model.eval()
