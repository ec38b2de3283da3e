"""Quantization-aware training: the forward pass rounds as the file will, the backward pass does not see it.

That is the straight-through estimator (Bengio et al., arXiv:1308.3432; for detectors as in Jacob et al.,
arXiv:1712.05877). Batch normalization goes on living while training: it scales whole output channels, and so does
every grid of `search.stages.precision.weights`, so rounding the weight before it is the same as rounding the folded
one.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from ultralytics.nn.modules import Conv
from ultralytics.nn.modules.block import DFL, RepVGGDW
from ultralytics.nn.modules.conv import RepConv

from search.stages.precision.weights import TERNARY_THRESHOLD, quantize_weights
from search.stages.prune_layers import output_layers
from spaces.recipe import Int8Qat, WeightQat

RANGE_MOMENTUM = 0.05  # of the moving average of an activation's range


def prepared(model: nn.Module, part: WeightQat | Int8Qat) -> nn.Module:
    """A copy of ``model`` that rounds its weights, and activations if ``part`` says so, whenever it computes."""
    copy = deepcopy(model)
    for conv in rounded_convs(copy, part).values():
        parametrize.register_parametrization(conv, "weight", Lattice(_bits(part)))
        if isinstance(part, Int8Qat):
            conv.input_range = InputRange()
            conv.register_forward_pre_hook(_round_input)
    return copy


def settled(model: nn.Module, part: WeightQat | Int8Qat) -> nn.Module:
    """A plain copy of a ``prepared`` model that was trained.

    The weights that were rounded are whole multiples of one scale for each output channel, also when batch
    normalization is folded into them: it is left as an addition alone.
    """
    copy = deepcopy(model)
    names = list(rounded_convs(copy, part))
    for name in names:
        conv = copy.get_submodule(name)
        if isinstance(part, Int8Qat):
            conv._forward_pre_hooks.clear()
            del conv.input_range
        _fix_weight(conv)
    for name in names:
        _settle(copy, name, _bits(part))
    return copy


def _fix_weight(conv: nn.Module) -> None:
    """Leaves ``conv`` with its rounded weight alone, in place.

    ``remove_parametrizations`` would take the weight from the class too, which copies of a model share.
    """
    weight = conv.get_parameter("parametrizations.weight.original").detach()
    rounding = conv.get_submodule("parametrizations.weight.0")
    conv.__class__ = type(conv).__bases__[0]
    del conv.parametrizations
    conv.register_parameter("weight", nn.Parameter(rounding(weight)))


def rounded_convs(model: nn.Module, part: WeightQat | Int8Qat) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions, and a classifier's linear layer, whose weights ``part`` rounds, by name.

    ``WeightQat`` leaves the first and the head's last alone, which cost most accuracy and are small. Convolutions that
    are merged with others at export stay in float too, and so does the box decoder.
    """
    skipped: set[int] = set()
    for module in model.modules():
        if isinstance(module, (DFL, RepConv, RepVGGDW)):
            skipped |= {id(inner) for inner in module.modules()}
    convs = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    if isinstance(part, WeightQat):
        skipped |= {id(next(iter(convs.values()))), *map(id, output_layers(model))}
    return {name: conv for name, conv in convs.items() if id(conv) not in skipped}


class Lattice(nn.Module):
    """Rounds a weight as ``quantize_weights`` does; the gradient passes as if it had not.

    The same numbers up to 1e-5 of a scale, which is rounded to 16 bits only in the end.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        """Maps a weight (channels out, …) to one of the same shape."""
        return weight + (self._rounded(weight.detach()) - weight).detach()

    def _rounded(self, weight: Tensor) -> Tensor:
        dims = tuple(range(1, weight.ndim))
        magnitude = weight.abs()
        mean = magnitude.mean(dims, keepdim=True)
        if self.bits == 1:
            return torch.where(weight < 0, -mean, mean)
        if self.bits == 2:
            kept = magnitude > TERNARY_THRESHOLD * mean
            scale = (magnitude * kept).sum(dims, keepdim=True) / kept.sum(dims, keepdim=True).clamp(min=1)
            return weight.sign() * kept * scale
        scale = magnitude.amax(dims, keepdim=True) / (127 if self.bits == 8 else 7)
        units = weight / scale.clamp(min=1e-12)
        odd = self.bits == 3
        return scale * ((2 * (units / 2).floor() + 1).clamp(-7, 7) if odd else units.round())


class InputRange(nn.Module):
    """Rounds an activation to 256 steps between the moving averages of its lowest and highest value, and 0."""

    low: Tensor
    high: Tensor
    seen: Tensor  # how many batches, as a float, so that the trainer's moving average takes it along

    def __init__(self) -> None:
        super().__init__()
        for name in ("low", "high", "seen"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Maps a tensor of any shape to one of the same shape; in training it also moves the range."""
        if self.training:
            with torch.no_grad():
                share = RANGE_MOMENTUM if self.seen > 0 else 1.0
                self.low.lerp_(x.min().float().clamp(max=0), share)
                self.high.lerp_(x.max().float().clamp(min=0), share)
                self.seen.add_(1)
        scale = ((self.high - self.low) / 255).clamp(min=1e-8)
        zero = (-self.low / scale).round().to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, 255).to(x.dtype)


def _round_input(conv: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (conv.input_range(inputs[0]),)


def _bits(part: WeightQat | Int8Qat) -> int:
    return part.bits if isinstance(part, WeightQat) else 8


def _settle(model: nn.Module, name: str, bits: int) -> None:
    """Folds batch normalization into the rounded weight ``name``, which becomes codes * scale, exactly.

    The normalization stays in its place, with a factor of 1, so that the model is still made of the same modules.
    """
    conv = model.get_submodule(name)
    assert isinstance(conv, (nn.Conv2d, nn.Linear))
    weight = conv.weight.detach().double().cpu().numpy()
    block = model.get_submodule(name.rpartition(".")[0])
    if isinstance(block, Conv) and block.conv is conv:
        weight = weight * _fold(block.bn).reshape(-1, 1, 1, 1)
    codes, scale = quantize_weights(weight.astype(np.float32), bits)
    conv.weight.data = torch.from_numpy(codes * scale).to(conv.weight)


def _fold(norm: nn.BatchNorm2d) -> np.ndarray:
    """The factor of a normalization in eval mode, (channels,), after which only its addition is left to it."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    norm.bias.data = (norm.bias.detach().double() - norm.running_mean.double() * factor).float()
    norm.weight.data = torch.ones_like(norm.weight)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)  # Ultralytics adds eps before it takes the root
    return factor.cpu().numpy()
