"""Swaps the activation function of every convolution block."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

from torch import nn
from ultralytics.nn.modules import Conv

from spaces.recipe import ActivationName

ACTIVATIONS: dict[ActivationName, Callable[[], nn.Module]] = {
    "silu": lambda: nn.SiLU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hardswish": lambda: nn.Hardswish(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
}


def swap_activation(model: nn.Module, name: ActivationName) -> nn.Module:
    """A copy of ``model`` whose convolution blocks use the activation ``name``; the weights are the same.

    Ultralytics shares one activation object among all blocks, so it is set on each block and not found by type.
    Blocks without an activation (``nn.Identity``) keep none.
    """
    swapped = deepcopy(model)
    for module in swapped.modules():
        if isinstance(module, Conv) and not isinstance(module.act, nn.Identity):
            module.act = ACTIVATIONS[name]()  # pyright: ignore[reportAttributeAccessIssue]  # not only SiLU
    return swapped
