"""Which layers may be pruned, by their names and their place in the model."""

from __future__ import annotations

import re
from typing import cast

from torch import nn

from search.stages.c2f import TwoConvs
from search.stages.psa import heads_layers
from search.tasks.table import kind_of_model
from spaces.parts.prune import named_ratios
from spaces.recipe import ChannelPruning, LayerwisePrune


def output_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the head whose channels mean something: the model's answer."""
    kind = kind_of_model(model)
    return [layer for module in model.modules() for layer in kind.outputs(module)]


def whole_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that keep all of their channels in any case: the model's outputs, and those inside of attentions."""
    return [*output_layers(model), *heads_layers(model)]


def protected_layers(model: nn.Module, part: ChannelPruning) -> list[nn.Module]:
    """The convolutions that keep all of their channels: ``whole_layers``, and those that ``part`` leaves out.

    Raises:
        ValueError: no layer is left to prune.
    """
    names = public_names(model)
    chosen = [layer for layer, name in names.items() if _chosen(name, model, part)]
    whole = whole_layers(model)
    free = [layer for layer in chosen if not any(layer in list(other.modules()) for other in whole)]
    if not free:
        raise ValueError(
            f"prune: where {part.where!r}, include {part.include!r} and exclude {part.exclude!r} leave no layer to "
            f"prune; layers have names such as {next(iter(names.values()), 'model.0.conv')}"
        )
    return [*whole, *(layer for layer in names if layer not in chosen)]


def layer_ratios(model: nn.Module, part: LayerwisePrune) -> dict[nn.Module, float]:
    """The share of its channels that every convolution loses, before coupling, rounding and the bound."""
    factors = {"backbone": part.backbone, "neck": part.neck, "head": part.head}
    named = named_ratios(part.layers)
    return {
        layer: next(
            (ratio for pattern, ratio in named if re.search(pattern, name)),
            min(part.ratio * factors[_place(name, model)], part.max_ratio),
        )
        for layer, name in public_names(model).items()
    }


def public_names(model: nn.Module) -> dict[nn.Module, str]:
    """The name of every convolution in the model as its user knows it, where a C2f's first convolution is one."""
    blocks = [name for name, module in model.named_modules() if isinstance(module, TwoConvs)]
    names: dict[nn.Module, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            for block in blocks:
                name = re.sub(rf"^{re.escape(block)}\.(first|second)\.", f"{block}.cv1.", name)
            names[module] = name
    return names


def _chosen(name: str, model: nn.Module, part: ChannelPruning) -> bool:
    if part.where != "all" and _place(name, model) != part.where:
        return False
    if part.exclude and re.search(part.exclude, name):
        return False
    return not part.include or bool(re.search(part.include, name))


def _place(name: str, model: nn.Module) -> str:
    """Where the layer called ``model.<index>.…`` is: as many first modules as the YAML says are the backbone."""
    index = int(name.split(".")[1])
    modules, backbone = cast(nn.Sequential, model.model), cast(dict[str, list[object]], model.yaml)["backbone"]
    if index == len(modules) - 1:
        return "head"
    return "backbone" if index < len(backbone) else "neck"
