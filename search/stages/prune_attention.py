"""Attention as importance: gates are trained on the frozen model, and say which channels they let through.

After PCAS, pruning channels with attention statistics (Yamamoto & Maeno 2018, arXiv:1806.05382), with
squeeze-and-excitation gates (Hu et al. 2018, arXiv:1709.01507).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import cast

import torch
import torch_pruning as tp
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search.stages.labelled import Batch, batch_loss

STEPS = 20  # of gradient descent, over the batches in turn
LEARNING_RATE = 0.1  # of gradients whose norm is at most 1 in each gate: steps of one size by Adam would rank by chance
REDUCTION = 4  # channels to hidden units


class ChannelGate(nn.Module):
    """One factor in (0, 2) for every channel of every image, from the channels' means; 1 before it is trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // REDUCTION)
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)
        self.factors: list[Tensor] = []  # (C,) each, the mean over the images of a batch seen in eval mode

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        factors = 2 * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        if not self.training:
            self.factors.append(factors.mean(0))
        return x * factors[:, :, None, None]

    def mean(self) -> Tensor:
        """The mean factor of each channel over what it has seen in eval mode, (C,)."""
        return torch.stack(self.factors).mean(0)


class AttentionImportance(tp.importance.GroupMagnitudeImportance):
    """A channel's mean gate, averaged over the gated convolutions that put it out."""

    def __init__(self, gates: dict[nn.Module, Tensor]) -> None:
        super().__init__()
        self.gates = gates

    def __call__(self, group: tp.Group) -> Tensor:
        """One score a channel, (channels,)."""
        scores: list[Tensor] = []
        roots: list[list[int]] = []
        for item in group.items:
            layer = item.dep.target.module
            if item.dep.handler == tp.prune_conv_out_channels and layer in self.gates:
                scores.append(self.gates[layer][item.idxs])
                roots.append(item.root_idxs)
        assert scores, f"attention gates sit on blocks of convolution and batch norm, and this group has none: {group}"
        return cast(Tensor, self._reduce(scores, roots))


def attention_importance(model: nn.Module, batches: Sequence[Batch]) -> AttentionImportance:
    """Scores from gates trained on ``batches`` while ``model`` is frozen; the model is left as it was."""
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    try:
        with torch.random.fork_rng(devices=[]), _gated(model) as gates:
            _train(gates, model, batches)
            gates.eval()
            with torch.no_grad():
                for batch in batches:
                    model(batch["img"])
            pairs = zip(_blocks(model), gates, strict=True)
            return AttentionImportance({block.conv: cast(ChannelGate, gate).mean() for block, gate in pairs})
    finally:
        for parameter, value in trained.items():
            parameter.requires_grad_(value)


def _train(gates: nn.ModuleList, model: nn.Module, batches: Sequence[Batch]) -> None:
    optimizer = torch.optim.SGD(gates.parameters(), lr=LEARNING_RATE)
    for batch in islice(cycle(batches), STEPS):
        optimizer.zero_grad()
        batch_loss(model, batch).backward()
        for gate in gates:
            nn.utils.clip_grad_norm_(gate.parameters(), 1.0)
        optimizer.step()


@contextmanager
def _gated(model: nn.Module) -> Generator[nn.ModuleList]:
    """Gates behind every block, in the order of ``_blocks``, for as long as the context lasts."""
    torch.manual_seed(0)
    blocks = _blocks(model)
    gates = nn.ModuleList([ChannelGate(block.conv.out_channels) for block in blocks])
    gates.to(next(model.parameters()).device)
    handles = [block.register_forward_hook(_hook(gate)) for block, gate in zip(blocks, gates, strict=True)]
    try:
        yield gates
    finally:
        for handle in handles:
            handle.remove()


def _hook(gate: nn.Module) -> Callable[[nn.Module, object, Tensor], Tensor]:
    return lambda module, inputs, output: gate(output)


def _blocks(model: nn.Module) -> list[Conv]:
    return [module for module in model.modules() if isinstance(module, Conv)]
