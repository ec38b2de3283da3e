"""A smaller model of the same family, which inherits slices of the larger one's weights (arXiv:2311.18823).

The smaller model is what Ultralytics builds from the architecture file with smaller multiples. Of each layer it takes
the first channels, of each repeated block the first repeats, and everywhere the same ones: a layer whose input was
joined from several parts takes, of each part, the channels that are still there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2PSA, C3, SPPF, C2f, C3k2, Classify, Concat, Conv, Detect, DWConv
from ultralytics.nn.modules.block import Attention, Bottleneck, C3k, PSABlock

from search.tasks.table import kind_of_model
from spaces.parts.structure import Scale


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Which of the ``of`` channels of a larger tensor the smaller one has, in its order."""

    channels: Tensor
    of: int


def scale(model: nn.Module, part: Scale) -> None:
    """Makes ``model`` as small as ``part`` says, in place; what the head puts out keeps its meaning.

    Raises:
        ValueError: the model has blocks that cannot be sliced here, or is not what its architecture file says.
    """
    content: Any = model.yaml
    build = kind_of_model(model).build
    if _shapes(model) != _shapes(build(content, None)):
        raise ValueError("structure: scale needs a model that is what its architecture file says; this one is not")
    smaller = build(scaled_yaml(content, part), None).train(model.training)
    image = int(content.get("channels", 3))
    kept: list[Kept] = []
    for large, small in zip(_layers(model), _layers(smaller), strict=True):
        sources = cast(list[int], [large.f] if isinstance(large.f, int) else large.f)
        whole = Kept(channels=torch.arange(image), of=image)
        kept.append(_inherit(large, small, [kept[source] if kept else whole for source in sources]))
    model.model, model.yaml = smaller.model, cast(Any, smaller.yaml)


def scaled_yaml(content: dict[str, Any], part: Scale) -> dict[str, Any]:
    """The content of an architecture file whose multiples of depth and width are smaller by ``part``."""
    if scales := content.get("scales"):
        name = content.get("scale") or next(iter(scales))
        depth, width, most = scales[name]
        return {**content, "scale": name, "scales": {name: [depth * part.depth, width * part.width, most]}}
    depth, width = content.get("depth_multiple", 1.0), content.get("width_multiple", 1.0)
    return {**content, "depth_multiple": depth * part.depth, "width_multiple": width * part.width}


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def _layers(model: nn.Module) -> list[nn.Module]:
    return list(model.get_submodule("model").children())


def _inherit(large: nn.Module, small: nn.Module, inputs: Sequence[Kept]) -> Kept:
    if type(large) not in INHERITS:
        raise ValueError(f"structure: scale knows no way to slice the weights of a {type(large).__name__}")
    return INHERITS[type(large)](large, small, inputs)


def _unchanged(large: nn.Module, small: nn.Module, inputs: Sequence[Kept]) -> Kept:
    return inputs[0]


def _concat(large: nn.Module, small: nn.Module, inputs: Sequence[Kept]) -> Kept:
    """The joined channels: those of each part, behind all channels of the parts before it."""
    channels, start = [], 0
    for part in inputs:
        channels.append(part.channels + start)
        start += part.of
    return Kept(channels=torch.cat(channels), of=start)


def _conv(large: Conv, small: Conv, inputs: Sequence[Kept]) -> Kept:
    rows = _first(small.conv.out_channels, large.conv.out_channels)
    _slice_conv(large, small, rows, inputs[0])
    return rows


def _bottleneck(large: Bottleneck, small: Bottleneck, inputs: Sequence[Kept]) -> Kept:
    return _inherit(large.cv2, small.cv2, [_inherit(large.cv1, small.cv1, inputs)])


def _c2f(large: C2f, small: C2f, inputs: Sequence[Kept]) -> Kept:
    part = _first(small.c, large.c)
    _slice_conv(large.cv1, small.cv1, _concat(large, small, [part, part]), inputs[0])  # cut in two behind it
    for theirs, own in zip(large.m, small.m, strict=False):  # the last repeats may be gone
        _inherit(theirs, own, [part])
    joined = _concat(large, small, [part] * (2 + len(small.m)))
    return _inherit(large.cv2, small.cv2, [Kept(channels=joined.channels, of=(2 + len(large.m)) * large.c)])


def _c3(large: C3, small: C3, inputs: Sequence[Kept]) -> Kept:
    deep, beside = _inherit(large.cv1, small.cv1, inputs), _inherit(large.cv2, small.cv2, inputs)
    for theirs, own in zip(large.m, small.m, strict=False):  # the last repeats may be gone
        _inherit(theirs, own, [deep])
    return _inherit(large.cv3, small.cv3, [_concat(large, small, [deep, beside])])


def _c2psa(large: C2PSA, small: C2PSA, inputs: Sequence[Kept]) -> Kept:
    part = _first(small.c, large.c)
    halves = _concat(large, small, [part, part])
    _slice_conv(large.cv1, small.cv1, halves, inputs[0])  # cut in two behind it
    for theirs, own in zip(large.m, small.m, strict=False):  # the last repeats may be gone
        _inherit(theirs, own, [part])
    return _inherit(large.cv2, small.cv2, [halves])


def _psa_block(large: PSABlock, small: PSABlock, inputs: Sequence[Kept]) -> Kept:
    _inherit(large.attn, small.attn, inputs)
    return _inherit(large.ffn, small.ffn, inputs)


def _attention(large: Attention, small: Attention, inputs: Sequence[Kept]) -> Kept:
    """The first queries, keys and values of all heads in a row; where heads are as wide, those of the first heads."""
    order = torch.empty(small.qkv.conv.out_channels, dtype=torch.long)
    for theirs, own in zip(_head_parts(large), _head_parts(small), strict=True):
        order[own] = theirs[: len(own)]
    _slice_conv(large.qkv, small.qkv, Kept(channels=order, of=large.qkv.conv.out_channels), inputs[0])
    values = _first(small.pe.conv.out_channels, large.pe.conv.out_channels)
    _inherit_depthwise(large.pe, small.pe, values)
    return _inherit(large.proj, small.proj, [values])


def _head_parts(attention: Attention) -> list[Tensor]:
    """Where the queries, keys and values of all heads are among the channels that each head cuts its own from."""
    sizes = [attention.key_dim, attention.key_dim, attention.head_dim]
    channels = torch.arange(attention.num_heads * sum(sizes)).view(attention.num_heads, -1)
    return [part.flatten() for part in channels.split(sizes, dim=1)]


def _dwconv(large: DWConv, small: DWConv, inputs: Sequence[Kept]) -> Kept:
    if not large.conv.groups == large.conv.in_channels == large.conv.out_channels:
        raise ValueError("structure: scale knows no way to slice the weights of a DWConv that changes the channels")
    _inherit_depthwise(large, small, inputs[0])
    return inputs[0]


def _inherit_depthwise(large: Conv, small: Conv, rows: Kept) -> None:
    _slice_conv(large, small, rows, _first(1, 1))  # each channel sees itself alone


def _sppf(large: SPPF, small: SPPF, inputs: Sequence[Kept]) -> Kept:
    part = _inherit(large.cv1, small.cv1, inputs)
    copies = large.cv2.conv.in_channels // part.of  # as it is, and pooled again and again
    return _inherit(large.cv2, small.cv2, [_concat(large, small, [part] * copies)])


def _detect(large: Detect, small: Detect, inputs: Sequence[Kept]) -> Kept:
    for theirs, own in ((large.cv2, small.cv2), (large.cv3, small.cv3)):
        for level, features in enumerate(inputs):
            _inherit(theirs[level], own[level], [features])
    small.load_state_dict({f"dfl.{name}": value for name, value in large.dfl.state_dict().items()}, strict=False)
    return inputs[0]


def _classify(large: Classify, small: Classify, inputs: Sequence[Kept]) -> Kept:
    kept = _inherit(large.conv, small.conv, inputs)
    small.linear.weight.data = large.linear.weight.data[:, kept.channels].clone()
    small.linear.bias.data = large.linear.bias.data.clone()
    return kept


def _sequence(large: nn.Sequential, small: nn.Module, inputs: Sequence[Kept]) -> Kept:
    kept = inputs[0]
    repeats = small if isinstance(small, nn.Sequential) else [small]  # a single one is no sequence
    for theirs, own in zip(large, repeats, strict=False):  # the last repeats may be gone
        kept = _inherit(theirs, own, [kept])
    return kept


def _plain(large: nn.Conv2d, small: nn.Conv2d, inputs: Sequence[Kept]) -> Kept:
    """The last convolution of a branch of the head: all that it puts out stays."""
    small.weight.data = large.weight.data[:, inputs[0].channels]
    if large.bias is not None and small.bias is not None:
        small.bias.data = large.bias.data.clone()
    return Kept(channels=torch.arange(large.out_channels), of=large.out_channels)


def _slice_conv(large: Conv, small: Conv, rows: Kept, columns: Kept) -> None:
    small.conv.weight.data = large.conv.weight.data[rows.channels][:, columns.channels]
    small.bn.eps, small.bn.momentum = large.bn.eps, large.bn.momentum
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(small.bn, name).data = getattr(large.bn, name).data[rows.channels].clone()
    small.act = large.act


def _first(count: int, of: int) -> Kept:
    return Kept(channels=torch.arange(count), of=of)


# How each kind of layer takes its weights: (large, small, what is kept of its inputs) gives what is kept of its output.
INHERITS: dict[type[nn.Module], Callable[[Any, Any, Sequence[Kept]], Kept]] = {
    Attention: _attention,
    Bottleneck: _bottleneck,
    C2PSA: _c2psa,
    C2f: _c2f,
    C3: _c3,
    C3k: _c3,
    C3k2: _c2f,
    Classify: _classify,
    Concat: _concat,
    Conv: _conv,
    DWConv: _dwconv,
    Detect: _detect,
    PSABlock: _psa_block,
    SPPF: _sppf,
    nn.Conv2d: _plain,
    nn.Sequential: _sequence,
    nn.Upsample: _unchanged,
}
