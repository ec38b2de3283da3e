"""Cheaper blocks in place of 3x3 convolution blocks, made from the weights that they replace."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv, GhostConv

from search.stages.sections import layers_in, put_in_place
from spaces.parts.structure import Depthwise, Ghost, Grouped, Where


def use_depthwise(model: nn.Module, part: Depthwise) -> None:
    """Replaces the section's 3x3 convolution blocks by depthwise-separable ones, in place."""
    _replace(model, part.where, separable)


def use_groups(model: nn.Module, part: Grouped) -> None:
    """Replaces the section's 3x3 convolution blocks by grouped ones, in place."""
    _replace(model, part.where, lambda block: grouped(block, part.groups))


def use_ghosts(model: nn.Module, part: Ghost) -> None:
    """Replaces the section's 3x3 convolution blocks with an even number of channels by ghost modules, in place."""
    _replace(model, part.where, lambda block: ghost(block) if block.conv.out_channels % 2 == 0 else None)


def separable(block: Conv) -> nn.Sequential:
    """A depthwise convolution, then a pointwise block with the norm and the activation of ``block``.

    Nothing stands between the two, so that together they are one linear map as before: in the sense of least
    squares, the nearest to the kernel of ``block`` that factors.
    """
    full = block.conv
    depth, point = nearest_factors(full.weight.data)
    inputs = full.in_channels
    first = nn.Conv2d(inputs, inputs, 3, full.stride[0], padding=1, groups=inputs, bias=False)
    second = Conv(inputs, full.out_channels, 1)
    first.weight.data, second.conv.weight.data = depth, point
    second.bn, second.act = block.bn, block.act
    return nn.Sequential(first, second)


def nearest_factors(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """The depthwise kernel (I, 1, 3, 3) and the pointwise matrix (O, I, 1, 1) whose product is nearest to ``kernel``.

    For each input channel, the (O, 9) matrix of its taps is replaced by the nearest one of rank one, which its
    singular value decomposition gives (Eckart and Young, 1936). The depthwise kernels have norm one, so that the
    channels between the two convolutions keep the scale of the input, which suits quantization by tensor, and the
    pointwise weights say how much a channel matters, which suits pruning by magnitude.

    Args:
        kernel: (O, I, 3, 3).
    """
    outputs, inputs = kernel.shape[:2]
    taps = kernel.double().permute(1, 0, 2, 3).reshape(inputs, outputs, 9)
    left, values, right = torch.linalg.svd(taps, full_matrices=False)
    depth, point = right[:, 0], left[:, :, 0] * values[:, :1]  # (I, 9) and (I, O)
    sign = depth.gather(1, depth.abs().argmax(1, keepdim=True)).sign()  # the sign is free: the largest tap is positive
    depth, point = depth * sign, point * sign
    return (
        depth.reshape(inputs, 1, 3, 3).to(kernel.dtype).contiguous(),
        point.T.reshape(outputs, inputs, 1, 1).to(kernel.dtype).contiguous(),
    )


def grouped(block: Conv, groups: int) -> Conv | None:
    """``block`` with a grouped convolution; None where its channels cannot be grouped.

    The grouped kernel is the block diagonal of the full one, which is the nearest to it in the sense of least squares.
    """
    full = block.conv
    count = _largest(groups, full)
    if count == 1:
        return None
    made = Conv(full.in_channels, full.out_channels, 3, full.stride[0], g=count)
    rows, columns = full.out_channels // count, full.in_channels // count
    corners = [(group * rows, group * columns) for group in range(count)]
    parts = [full.weight.data[row : row + rows, column : column + columns] for row, column in corners]
    made.conv.weight.data = torch.cat(parts)
    made.bn, made.act = block.bn, block.act
    return made


def _largest(groups: int, conv: nn.Conv2d) -> int:
    """The most groups, up to ``groups``, of equally many channels, at least two: one would be a depthwise kernel."""
    fits = [
        count
        for count in range(1, groups + 1)
        if groups % count == 0 and all(n % count == 0 and n >= 2 * count for n in (conv.in_channels, conv.out_channels))
    ]
    return max(fits, default=1)


def ghost(block: Conv) -> GhostConv:
    """A ghost module whose first half of channels is that of ``block``, computed by the same weights.

    A channel of the second half starts as a copy of its partner in the first half, under the norm's scale and shift
    of the channel that it stands in for; the statistics of that norm are new, since its input is.
    """
    full, half = block.conv, block.conv.out_channels // 2
    made = GhostConv(full.in_channels, full.out_channels, 3, full.stride[0])
    made.cv1.conv.weight.data = full.weight.data[:half].clone()
    taps = torch.zeros_like(made.cv2.conv.weight.data)
    taps[:, :, 2, 2] = 1
    made.cv2.conv.weight.data = taps
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(made.cv1.bn, name).data = getattr(block.bn, name).data[:half].clone()
    for name in ("weight", "bias"):
        getattr(made.cv2.bn, name).data = getattr(block.bn, name).data[half:].clone()
    for own in (made.cv1, made.cv2):
        own.bn.eps, own.bn.momentum = block.bn.eps, block.bn.momentum
        own.act = block.act
    return made


def _replace(model: nn.Module, where: Where, new: Callable[[Conv], nn.Module | None]) -> None:
    blocks = [block for layer in layers_in(model, where) for block in layer.modules() if _is_plain(block)]
    pairs = [(block, new(block)) for block in blocks if isinstance(block, Conv)]
    if not any(made for _, made in pairs):
        raise ValueError(f"structure: the model has no 3x3 convolution to replace (where: {where})")
    for block, made in pairs:
        if made is not None:
            put_in_place(model, block, made)


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is an ordinary block with a dense 3x3 convolution."""
    if type(module) is not Conv:
        return False
    conv = module.conv
    return conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
