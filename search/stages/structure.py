"""Changes what a model is made of, with as much of its trained weights as fits."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from search.stages.attention import add_cbam_channel, add_efficient_attention, add_squeeze_excite
from search.stages.blocks import use_depthwise, use_ghosts, use_groups
from search.stages.scale import scale
from spaces.recipe import (
    CbamChannel,
    Depthwise,
    EfficientAttention,
    Ghost,
    Grouped,
    Part,
    Scale,
    SqueezeExcite,
)


def change_structure(model: nn.Module, part: Part, *, seed: int) -> nn.Module:
    """A copy of ``model`` with the blocks of ``part``, which trains, fuses and exports like the original.

    Args:
        model: a model of Ultralytics.
        part: a kind of structure, other than none.
        seed: of the few weights that the model has none for.

    Raises:
        ValueError: the model has nothing that this could be done to.
    """
    changed = deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        STRUCTURES[type(part)](changed, part)
    return changed


# How each part changes a model in place. A new structure is a type, a function and a line here.
STRUCTURES: dict[type[Part], Callable[[nn.Module, Any], None]] = {
    Depthwise: use_depthwise,
    Grouped: use_groups,
    Ghost: use_ghosts,
    SqueezeExcite: add_squeeze_excite,
    EfficientAttention: add_efficient_attention,
    CbamChannel: add_cbam_channel,
    Scale: scale,
}
