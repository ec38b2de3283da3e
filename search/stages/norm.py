"""The statistics of batch norms, measured anew after the layers before them have changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def reestimate_norms(model: nn.Module, images: Sequence[Tensor]) -> None:
    """Sets every batch norm's mean and variance to the average over ``images``, in place; weights stay.

    Known as adaptive or recalibrated batch norm (EagleEye, Li et al. 2020, arXiv:2007.02491).

    Args:
        model: left in eval mode.
        images: training batches, each (N, 3, H, W) float in [0, 1], all counting the same.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average of all batches, not a moving one
    model.train()
    with torch.no_grad():
        for batch in images:
            model(batch)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
