"""Channel attention: each channel is weighed by what all positions of the picture say about it.

Every module here starts as the identity: weights are 2 * sigmoid(z) with z = 0 at first, so that the baseline's
accuracy is where training starts from. Checkpoints that hold one need this module to be importable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch.nn import functional
from ultralytics.nn.modules import C2f, Classify, Detect

from search.stages.sections import layers_in, put_in_place
from spaces.parts.structure import CbamChannel, EfficientAttention, SqueezeExcite, Where

LEAST_HIDDEN = 8  # units; fewer would be no summary of the channels, and save nothing


class Bottleneck(nn.Module):
    """Two fully connected layers over the channels, as 1x1 convolutions; the last one starts at zero."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, LEAST_HIDDEN)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(cast(Tensor, self.excite.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, 1, 1) to (N, C, 1, 1)."""
        return self.excite(self.squeeze(x).relu())


class SqueezeExciteBlock(nn.Module):
    """Weights from the channels' means by a bottleneck (arXiv:1709.01507)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        return x * (2 * self.bottleneck(functional.adaptive_avg_pool2d(x, 1)).sigmoid())


class CbamChannelBlock(nn.Module):
    """Weights from the channels' means and maxima by one bottleneck for both (arXiv:1807.06521, its first half)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        means, maxima = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        return x * (2 * (self.bottleneck(means) + self.bottleneck(maxima)).sigmoid())


class EfficientAttentionBlock(nn.Module):
    """Weights from the means of neighbouring channels by one small convolution over them (arXiv:1910.03151)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = eca_size(channels)
        self.conv = nn.Conv2d(1, 1, (size, 1), padding=(size // 2, 0), bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        means = functional.adaptive_avg_pool2d(x, 1).transpose(1, 2)  # (N, 1, C, 1)
        # As a function and not a layer: Torch-Pruning would take the one channel for the channels of x.
        near = functional.conv2d(means, self.conv.weight, padding=self.conv.padding)
        return x * (2 * near.transpose(1, 2).sigmoid())


def eca_size(channels: int) -> int:
    """How many neighbouring channels are seen: the paper's rule with gamma 2 and b 1, the next odd number upwards."""
    size = int(abs((math.log2(channels) + 1) / 2))
    return size if size % 2 else size + 1


def add_squeeze_excite(model: nn.Module, part: SqueezeExcite) -> None:
    """Puts squeeze-and-excitation behind the section's blocks, in place."""
    _attend(model, part.where, lambda channels: SqueezeExciteBlock(channels, part.reduction))


def add_efficient_attention(model: nn.Module, part: EfficientAttention) -> None:
    """Puts efficient channel attention behind the section's blocks, in place."""
    _attend(model, part.where, EfficientAttentionBlock)


def add_cbam_channel(model: nn.Module, part: CbamChannel) -> None:
    """Puts CBAM's channel attention behind the section's blocks, in place."""
    _attend(model, part.where, lambda channels: CbamChannelBlock(channels, part.reduction))


def _attend(model: nn.Module, where: Where, attention: Callable[[int], nn.Module]) -> None:
    places: list[tuple[nn.Module, int]] = []  # blocks, and the channels that they put out
    for layer in layers_in(model, where):
        if isinstance(layer, C2f):
            places.append((layer, layer.cv2.conv.out_channels))
        elif isinstance(layer, Detect):
            for branch in (*layer.cv2, *layer.cv3):
                *_, block, last = cast(nn.Sequential, branch)
                places.append((block, cast(nn.Conv2d, last).in_channels))
        elif isinstance(layer, Classify):
            places.append((layer.conv, layer.conv.conv.out_channels))
    if not places:
        raise ValueError(f"structure: the model has no C2f block to put attention behind (where: {where})")
    for block, channels in places:
        put_in_place(model, block, nn.Sequential(block, attention(channels)))
