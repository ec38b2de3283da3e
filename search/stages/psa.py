"""YOLO11's self-attention in a form that can be pruned, and with fewer channels around it.

What its heads compute is left whole: it is a few percent of a model, and every head needs all of its keys. Only the
channels that go in and come out can be fewer.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from ultralytics.nn.modules.block import Attention


class NarrowAttention(Attention):
    """An attention around which there may be fewer channels than its heads put out together.

    Ultralytics' takes their number from its input. Checkpoints that hold one need this module to be importable.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C1, H, W) to (N, C2, H, W)."""
        return self.proj(self.attend(self.qkv(x)))

    def attend(self, qkv: Tensor) -> Tensor:
        """What the heads put out together, (N, heads · head size, H, W), from their queries, keys and values."""
        images, _, height, width = qkv.shape
        sizes = [self.key_dim, self.key_dim, self.head_dim]
        heads = qkv.view(images, self.num_heads, sum(sizes), height * width)
        queries, keys, values = heads.split(sizes, dim=2)
        weights = ((queries * self.scale).transpose(-2, -1) @ keys).softmax(dim=-1)
        shape = (images, self.num_heads * self.head_dim, height, width)
        return (values @ weights.transpose(-2, -1)).view(shape) + self.pe(values.reshape(shape))


class OpaqueAttention(NarrowAttention):
    """The same as one step of the graph; exists only while a model is being pruned.

    Torch-Pruning follows autograd's graph, and takes endless time for these views. A checkpoint of the kind that does
    not know its own graph is one operation there, and still has gradients.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As ``NarrowAttention``."""
        return self.proj(cast(Tensor, checkpoint(self.attend, self.qkv(x), use_reentrant=True)))


def open_attention(model: nn.Module) -> None:
    """Makes every attention inside ``model`` one that can be traced, in place."""
    for attention in _attentions(model):
        attention.__class__ = OpaqueAttention


def close_attention(model: nn.Module) -> None:
    """Undoes ``open_attention``, in place, whatever was pruned in between."""
    for attention in _attentions(model):
        around = {attention.qkv.conv.in_channels, attention.proj.conv.out_channels}
        whole = around == {attention.num_heads * attention.head_dim}
        attention.__class__ = Attention if whole else NarrowAttention


def heads_layers(model: nn.Module) -> list[nn.Module]:
    """The layers inside of attentions, whose output the heads need whole."""
    return [layer for attention in _attentions(model) for layer in (attention.qkv.conv, attention.pe.conv)]


def _attentions(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, Attention)]
