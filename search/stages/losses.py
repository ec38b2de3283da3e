"""Ultralytics' detection loss with smoothed class targets, which it no longer offers itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class SmoothedBCE(nn.Module):
    """Binary cross-entropy of each class score, after a share of each object's target went to all classes evenly.

    Label smoothing (Szegedy et al., arXiv:1512.00567) for targets that are alignment scores: a target row t becomes
    (1 - share) * t + share * mean(t). Its sum, by which the loss is divided, stays; rows without an object stay 0.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Maps logits and targets (N, anchors, classes) to the loss of each, unreduced, in the same shape."""
        smoothed = targets.lerp(targets.mean(-1, keepdim=True).expand_as(targets), self.share)
        return nn.functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")


def label_loss(model: Any, label_smoothing: float) -> Any:
    """The loss that Ultralytics made for ``model``, with smoothed class targets.

    Heads with two branches have a loss for each.
    """
    criterion = model.init_criterion()
    if label_smoothing:
        parts = [criterion.one2many, criterion.one2one] if hasattr(criterion, "one2one") else [criterion]
        for part in parts:
            part.bce = SmoothedBCE(label_smoothing)
    return criterion
