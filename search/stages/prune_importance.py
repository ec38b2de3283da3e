"""How much each channel matters: the scores by which pruning chooses what goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch_pruning as tp
from torch import Tensor, nn

from search.stages.labelled import Batch, batch_loss
from search.stages.prune_attention import attention_importance
from search.tasks.table import kind_of_model

Importance = Callable[..., Tensor | None]  # a dependency group of Torch-Pruning to one score a channel, or none


class GeometricMedianImportance(tp.importance.GroupMagnitudeImportance):
    """A filter's distance to all others of its layer: near the geometric median it is replaceable (arXiv:1811.00250).

    Torch-Pruning's own compares squared weights, and so takes a filter and its negative for twins.
    """

    def __call__(self, group: tp.Group) -> Tensor | None:
        """The mean over the group's convolutions, (channels,); None for a group without any."""
        scores: list[Tensor] = []
        roots: list[list[int]] = []
        for item in group.items:
            if item.dep.handler == tp.prune_conv_out_channels:
                filters = item.dep.target.module.weight.data[item.idxs].flatten(1)
                scores.append(torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1))
                roots.append(item.root_idxs)
        return self._normalize(self._reduce(scores, roots), self.normalizer) if scores else None


class LotImportance(tp.importance.Importance):
    """A score drawn by lot for each channel, in [0, 1): the control that every other score must beat.

    As strong as many of them after long training (Mittal et al. 2018, arXiv:1801.10447). Torch-Pruning's own draws from
    the process's generator, so that what ran before would change the model.
    """

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, group: tp.Group) -> Tensor:
        """The scores of the group's channels, (channels,); other ones at every call."""
        return torch.rand(len(group[0].idxs), generator=self._generator)


def _taylor(model: nn.Module, batches: Sequence[Batch]) -> Importance:
    """The first-order change of the loss (Molchanov et al. 2019)."""
    model.zero_grad()
    for batch in batches:
        batch_loss(model, batch).backward()
    return tp.importance.GroupTaylorImportance()


def _hessian(model: nn.Module, batches: Sequence[Batch]) -> Importance:
    """The second-order one, by the diagonal Fisher information: w² · E[g²], g the gradient of one image's loss.

    Optimal brain damage (LeCun et al. 1989). The mean is taken here and read from where gradients are: Torch-Pruning
    1.6.1's own accumulation looks its sums up under the wrong key and forgets all images but the last.
    """
    kind = kind_of_model(model)
    images = [image for batch in batches for image in kind.singles(batch)]
    means = {parameter: torch.zeros_like(parameter) for parameter in model.parameters()}
    for image in images:
        model.zero_grad()
        batch_loss(model, image).backward()
        for parameter, mean in means.items():
            if parameter.grad is not None:
                mean += parameter.grad.square() / len(images)
    for parameter, mean in means.items():
        parameter.grad = mean
    return tp.importance.GroupHessianImportance()


# What scores the channels of a model whose C2f blocks are two convolutions. A new method is a name and a line here.
IMPORTANCES: dict[str, Callable[[nn.Module, Sequence[Batch]], Importance]] = {
    "l1": lambda model, batches: tp.importance.GroupMagnitudeImportance(p=1),
    "l2": lambda model, batches: tp.importance.GroupMagnitudeImportance(p=2),
    "bn_scale": lambda model, batches: tp.importance.BNScaleImportance(),
    "lamp": lambda model, batches: tp.importance.LAMPImportance(p=2),
    "fpgm": lambda model, batches: GeometricMedianImportance(),
    "taylor": _taylor,
    "hessian": _hessian,
    "attention": attention_importance,
    "random": lambda model, batches: LotImportance(),
}
NEEDS_LABELS = frozenset({"taylor", "hessian", "attention"})
