"""C2f blocks in a form that can be pruned, and back.

C2f computes one convolution and cuts its output in two (``chunk``), which Torch-Pruning cannot trace. As two
convolutions the block computes the same numbers and can be pruned; afterwards the two are joined again. Where the
halves were pruned unequally the block becomes a ``SplitC2f``, which cuts at the right place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2f, Conv


class SplitC2f(C2f):
    """A C2f whose two parts have ``sizes`` channels. Checkpoints that hold one need this module to be importable."""

    sizes: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C1, H, W) to (N, C2, H, W)."""
        parts = list(self.cv1(x).split(self.sizes, 1))
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(torch.cat(parts, 1))

    forward_split = forward  # the exporter puts this one in the place of forward


class TwoConvC2f(nn.Module):
    """A C2f as two convolutions; exists only while a model is being pruned."""

    def __init__(self, block: C2f) -> None:
        super().__init__()
        sizes = block.sizes if isinstance(block, SplitC2f) else (block.c, block.c)
        self.first, self.second = _split(block.cv1, sizes)
        self.m, self.cv2 = block.m, block.cv2
        _note(self, f=block.f, i=block.i, type=block.type, np=block.np)
        self.training = block.training

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C1, H, W) to (N, C2, H, W), with the same numbers as the C2f that it was made from."""
        parts = [self.first(x), self.second(x)]
        parts.extend(block(parts[-1]) for block in self.m)
        return self.cv2(torch.cat(parts, 1))


def to_two_convs(model: nn.Module) -> None:
    """Replaces every C2f inside ``model``, in place."""
    _replace(model, lambda module: TwoConvC2f(module) if type(module) is C2f or type(module) is SplitC2f else None)


def from_two_convs(model: nn.Module) -> None:
    """Undoes ``to_two_convs``, in place, whatever was pruned in between."""
    _replace(model, lambda module: _joined(module) if isinstance(module, TwoConvC2f) else None)


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


def _joined(block: TwoConvC2f) -> C2f:
    first, second = block.first, block.second
    sizes = (first.conv.out_channels, second.conv.out_channels)
    kind = C2f if sizes[0] == sizes[1] else SplitC2f
    joined = kind.__new__(kind)  # the constructor would build layers of other shapes
    nn.Module.__init__(joined)
    joined.c = sizes[1]
    if isinstance(joined, SplitC2f):
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
