"""Ultralytics' losses with smoothed class targets, which it no longer offers itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from search.tasks.table import kind_of_model


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
    """The loss that Ultralytics made for ``model``, with smoothed class targets."""
    criterion = model.init_criterion()
    return kind_of_model(model).smoothed(criterion, label_smoothing) if label_smoothing else criterion


def smooth_boxes(criterion: Any, share: float) -> Any:
    """The loss of a detector, with smoothed class targets."""
    criterion.bce = SmoothedBCE(share)
    return criterion


class SmoothedCrossEntropy:
    """The loss of a classifier, with a share of the target spread evenly over all classes (arXiv:1512.00567)."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, preds: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over the images; ``preds`` are logits (N, C), behind the probabilities where a model predicts."""
        logits = preds[1] if isinstance(preds, (list, tuple)) else preds
        loss = nn.functional.cross_entropy(logits, batch["cls"], label_smoothing=self.share)
        return loss, {"loss": loss.detach()}
