"""Unstructured sparsity: single weights are put to zero and held there; shapes stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from ultralytics.nn.modules.block import DFL

from spaces.recipe import MagnitudeSparsify, NMSparsify, Part, ThresholdSparsify

Weights = dict[str, Tensor]  # (out, in / groups, h, w) each, by the parameter's name
Masks = dict[str, Tensor]  # of the same shapes, True where a weight stays


def sparsify(model: nn.Module, part: ThresholdSparsify | MagnitudeSparsify | NMSparsify) -> nn.Module:
    """A copy of ``model`` whose convolutions have the zeros that ``part`` asks for; the box decoder stays dense."""
    copy = deepcopy(model)
    weights = convolution_weights(copy)
    for name, mask in MASKS[type(part)](weights, part).items():
        weights[name].mul_(mask)
    return copy


def convolution_weights(model: nn.Module) -> Weights:
    """The weights of all convolutions but the box decoder's, as views of the model's own."""
    fixed = {id(inner) for module in model.modules() if isinstance(module, DFL) for inner in module.modules()}
    return {
        f"{name}.weight": _trained_weight(module).data
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and id(module) not in fixed
    }


def _trained_weight(conv: nn.Conv2d) -> Tensor:
    """The weight that an optimizer changes: not the rounded one, in a training that rounds."""
    return conv.get_parameter("parametrizations.weight.original" if is_parametrized(conv, "weight") else "weight")


def hold_zeros(model: nn.Module) -> Callable[[nn.Module, float], None]:
    """What puts the weights that are zero in ``model`` now back to zero after each step of an optimizer.

    It takes the trained model, which has the convolutions of ``model``, by name and shape.
    """
    masks = {name: weight != 0 for name, weight in convolution_weights(model).items()}

    def hold(trained: nn.Module, rate: float) -> None:
        weights = convolution_weights(trained)
        for name, mask in masks.items():
            weights[name].mul_(mask.to(weights[name].device))

    return hold


def _threshold_masks(weights: Weights, part: ThresholdSparsify) -> Masks:
    return {name: weight.abs() >= part.threshold for name, weight in weights.items()}


def _magnitude_masks(weights: Weights, part: MagnitudeSparsify) -> Masks:
    """Magnitude pruning (Han et al. 2015, arXiv:1506.02626): exactly the rounded share goes."""
    if part.scope == "layer":
        return {name: _largest(weight.abs().flatten(), part.ratio).view_as(weight) for name, weight in weights.items()}
    sizes = [weight.numel() for weight in weights.values()]
    every = _largest(torch.cat([weight.abs().flatten() for weight in weights.values()]), part.ratio)
    return {name: mask.view_as(weights[name]) for name, mask in zip(weights, every.split(sizes), strict=True)}


def _largest(scores: Tensor, ratio: float) -> Tensor:
    """False for the share ``ratio`` of the lowest ``scores``, both (N,)."""
    mask = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    mask[scores.argsort(stable=True)[: round(ratio * len(scores))]] = False
    return mask


def _n_m_masks(weights: Weights, part: NMSparsify) -> Masks:
    """N:M sparsity (Mishra et al. 2021, arXiv:2104.08378)."""
    return {
        name: _n_of_m(weight.abs(), part) if weight.shape[1] % part.m == 0 else torch.ones_like(weight).bool()
        for name, weight in weights.items()
    }


def _n_of_m(scores: Tensor, part: NMSparsify) -> Tensor:
    """True for the ``n`` highest of every ``m`` scores along the second axis."""
    runs = scores.transpose(1, -1).unflatten(-1, (-1, part.m))
    kept = torch.zeros_like(runs).bool()
    kept.scatter_(-1, runs.argsort(dim=-1, descending=True, stable=True)[..., : part.n], value=True)
    return kept.flatten(-2).transpose(1, -1)


# Which weights stay. A new way to choose them is a type, a function and a line here.
MASKS: dict[type[Part], Callable[[Weights, Any], Masks]] = {
    ThresholdSparsify: _threshold_masks,
    MagnitudeSparsify: _magnitude_masks,
    NMSparsify: _n_m_masks,
}
