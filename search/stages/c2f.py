"""Blocks that compute one convolution and cut its output in two, in a form that can be pruned, and back.

They are C2f, those made of it such as YOLO11's C3k2, and C2PSA. Torch-Pruning cannot trace the cut (``chunk``). As two
convolutions a block computes the same numbers and can be pruned; afterwards the two are joined again. Where the
halves were pruned unequally the block becomes one with ``sizes``, which cuts at the right place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2PSA, C2f, Conv


class SplitC2f(C2f):
    """A C2f whose two parts have ``sizes`` channels. Checkpoints that hold one need this module to be importable."""

    sizes: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C1, H, W) to (N, C2, H, W)."""
        parts = list(self.cv1(x).split(self.sizes, 1))
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(torch.cat(parts, 1))

    forward_split = forward  # the exporter puts this one in the place of forward


class SplitC2PSA(C2PSA):
    """A C2PSA whose two parts have ``sizes`` channels. Checkpoints that hold one need this module to be importable."""

    sizes: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape, but for the channels."""
        first, second = self.cv1(x).split(self.sizes, 1)
        return self.cv2(torch.cat([first, self.m(second)], 1))


class TwoConvs(nn.Module):
    """A block as two convolutions; exists only while a model is being pruned.

    It computes the same numbers as the block that it was made from. Joined again it is of the type ``even`` if the
    two have as many channels, or else ``uneven``.
    """

    even: type[nn.Module]
    uneven: type[nn.Module]

    m: Any
    cv2: Conv

    def __init__(self, block: Any) -> None:
        super().__init__()
        cut = type(block) is self.uneven
        if not cut:
            self.even = type(block)  # such as C3k2, which differs in what it repeats
        sizes: Any = block.sizes if cut else (block.c, block.c)
        self.first, self.second = _split(block.cv1, sizes)
        self.m, self.cv2 = block.m, block.cv2
        _note(self, f=block.f, i=block.i, type=block.type, np=block.np)
        self.training = block.training


class TwoConvC2f(TwoConvs):
    """A C2f or a block that is made of one."""

    even, uneven = C2f, SplitC2f

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C1, H, W) to (N, C2, H, W)."""
        parts = [self.first(x), self.second(x)]
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(torch.cat(parts, 1))


class TwoConvC2PSA(TwoConvs):
    """A C2PSA: attention on one half."""

    even, uneven = C2PSA, SplitC2PSA

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape, but for the channels."""
        return self.cv2(torch.cat([self.first(x), self.m(self.second(x))], 1))


def to_two_convs(model: nn.Module) -> None:
    """Replaces every such block inside ``model``, in place."""
    _replace(model, _as_two_convs)


def from_two_convs(model: nn.Module) -> None:
    """Undoes ``to_two_convs``, in place, whatever was pruned in between."""
    _replace(model, lambda module: _joined(module) if isinstance(module, TwoConvs) else None)


def _as_two_convs(module: nn.Module) -> TwoConvs | None:
    forward = type(module).forward
    if forward in (C2f.forward, SplitC2f.forward):
        return TwoConvC2f(module)
    return TwoConvC2PSA(module) if forward in (C2PSA.forward, SplitC2PSA.forward) else None


def _replace(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            new = replacement(child)
            if new is not None:
                setattr(parent, name, new)


def _split(conv: Conv, sizes: tuple[int, int]) -> tuple[Conv, Conv]:
    """Two blocks that compute the first and the last output channels of ``conv``."""
    halves: list[Conv] = []
    for part, rows in zip(sizes, torch.arange(sum(sizes)).split(sizes), strict=True):
        half = Conv(conv.conv.in_channels, part, 1, 1)
        half.conv.weight.data = conv.conv.weight.data[rows].clone()
        _copy_norm(half.bn, [conv.bn], rows)
        half.act = conv.act
        halves.append(half.train(conv.training))
    return halves[0], halves[1]


def _joined(block: TwoConvs) -> nn.Module:
    first, second = block.first, block.second
    sizes = (first.conv.out_channels, second.conv.out_channels)
    kind = block.even if sizes[0] == sizes[1] else block.uneven
    joined: Any = kind.__new__(kind)  # the constructor would build layers of other shapes
    nn.Module.__init__(joined)
    joined.c = sizes[1]
    if kind is block.uneven:
        joined.sizes = sizes
    joined.cv1 = Conv(first.conv.in_channels, sum(sizes), 1, 1)
    joined.cv1.conv.weight.data = torch.cat([first.conv.weight.data, second.conv.weight.data])
    _copy_norm(joined.cv1.bn, [first.bn, second.bn], torch.arange(sum(sizes)))
    joined.cv1.act = first.act
    joined.cv1.train(first.training)
    joined.training = block.training
    joined.m, joined.cv2 = block.m, block.cv2
    parameters = sum(parameter.numel() for parameter in joined.parameters())
    _note(joined, f=block.f, i=block.i, type=f"{kind.__module__}.{kind.__name__}", np=parameters)
    return joined


def _note(module: nn.Module, **notes: object) -> None:
    """Sets what Ultralytics' parser notes on a block: where its input is from, its index, type and size."""
    for name, value in notes.items():
        setattr(module, name, value)


def _copy_norm(target: nn.BatchNorm2d, sources: list[nn.BatchNorm2d], rows: Tensor) -> None:
    """Sets ``target`` to the ``rows`` of the concatenated ``sources``."""
    target.eps, target.momentum = sources[0].eps, sources[0].momentum
    for name in ("weight", "bias", "running_mean", "running_var"):
        values = torch.cat([getattr(source, name).data for source in sources])
        getattr(target, name).data = values[rows].clone()
    assert target.num_batches_tracked is not None and sources[0].num_batches_tracked is not None
    target.num_batches_tracked.copy_(sources[0].num_batches_tracked)
