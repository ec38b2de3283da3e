"""Swaps the activation function of every convolution block, at once or little by little while training."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from spaces.recipe import ActivationName

ACTIVATIONS: dict[ActivationName, Callable[[], nn.Module]] = {
    "silu": lambda: nn.SiLU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hardswish": lambda: nn.Hardswish(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "gelu": lambda: nn.GELU(),
}


class BlendedActivation(nn.Module):
    """``(1 - share) * old + share * new``; exists only while a model is being trained."""

    share: Tensor  # a number from 0 to 1; a buffer, so that it moves to the model's device

    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.old, self.new = old, new
        self.register_buffer("share", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Maps a tensor of any shape to one of the same shape."""
        return torch.lerp(self.old(x.clone()), self.new(x), self.share.to(x.dtype))  # both may work in place


def swap_activation(model: nn.Module, name: ActivationName) -> nn.Module:
    """A copy of ``model`` whose convolution blocks use the activation ``name``; the weights are the same.

    Ultralytics shares one activation object among all blocks, so it is set on each block and not found by type.
    Blocks without an activation (``nn.Identity``) keep none.
    """
    swapped = deepcopy(model)
    _replace(swapped, lambda act: ACTIVATIONS[name]())
    return swapped


def blend_activation(model: nn.Module, old: nn.Module) -> nn.Module:
    """A copy of ``model`` whose activations are those of the model ``old``, ready to become its own again.

    ``set_share`` moves them there, ``drop_old`` leaves the new ones alone.
    """
    blended = deepcopy(model)
    before = next(
        module.act for module in old.modules() if isinstance(module, Conv) and not isinstance(module.act, nn.Identity)
    )
    _replace(blended, lambda act: BlendedActivation(deepcopy(before), act))
    return blended


def set_share(model: nn.Module, share: float) -> None:
    """Sets how much of the new activation a blended model computes, in place; nothing happens to others."""
    for module in model.modules():
        if isinstance(module, BlendedActivation):
            module.share.fill_(share)


def drop_old(model: nn.Module) -> None:
    """Leaves the new activations alone in a blended model, in place."""
    _replace(model, lambda act: act.new if isinstance(act, BlendedActivation) else act)


def _replace(model: nn.Module, replacement: Callable[[nn.Module], nn.Module]) -> None:
    for module in list(model.modules()):
        if isinstance(module, Conv) and not isinstance(module.act, nn.Identity):
            module.act = replacement(module.act)  # pyright: ignore[reportAttributeAccessIssue]  # not only SiLU
