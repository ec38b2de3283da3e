"""Channel attention: the identity at first, the papers' formulas afterwards, and in the file where it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from search.stages.attention import CbamChannelBlock, EfficientAttentionBlock, SqueezeExciteBlock, eca_size
from search.stages.export import export_onnx
from search.stages.structure import change_structure
from spaces.recipe import CbamChannel, EfficientAttention, Export, SqueezeExcite
from tests.tiny import SIZE, answers, noise, onnx_answers, parameters

PARTS: list[tuple[Any, type[nn.Module]]] = [
    (SqueezeExcite(reduction=4), SqueezeExciteBlock),
    (EfficientAttention(), EfficientAttentionBlock),
    (CbamChannel(reduction=4), CbamChannelBlock),
]
parts = pytest.mark.parametrize(("part", "block"), PARTS, ids=[part.kind for part, _ in PARTS])
# Where modules stand: behind each C2f, and before the last convolution of each branch of the head.
PLACES = {
    "backbone": {f"model.{layer}.1" for layer in (2, 4, 6, 8)},
    "neck": {f"model.{layer}.1" for layer in (12, 15, 18, 21)},
    "head": {f"model.22.cv{branch}.{level}.1.1" for branch in (2, 3) for level in range(3)},
}
PLACES["all"] = PLACES["backbone"] | PLACES["neck"] | PLACES["head"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def bottleneck(block: Any, means: np.ndarray) -> np.ndarray:
    squeeze, excite = block.bottleneck.squeeze, block.bottleneck.excite
    first, second = (layer.weight.detach().numpy()[:, :, 0, 0] for layer in (squeeze, excite))
    hidden = np.maximum(means @ first.T + squeeze.bias.detach().numpy(), 0)
    return hidden @ second.T + excite.bias.detach().numpy()


def by_eca(block: Any, x: np.ndarray) -> np.ndarray:
    taps = block.conv.weight.detach().numpy().ravel()
    return np.stack([np.correlate(means, taps, mode="same") for means in x.mean((2, 3))])


# The papers' formulas for the argument of the sigmoid, written out: (N, C, H, W) to (N, C).
FORMULAS: dict[type[nn.Module], Callable[[Any, np.ndarray], np.ndarray]] = {
    SqueezeExciteBlock: lambda block, x: bottleneck(block, x.mean((2, 3))),
    EfficientAttentionBlock: by_eca,
    CbamChannelBlock: lambda block, x: bottleneck(block, x.mean((2, 3))) + bottleneck(block, x.max((2, 3))),
}


@parts
@pytest.mark.parametrize("where", PLACES)
def test_the_model_computes_the_same_bits_at_first(model: nn.Module, part: Any, block: Any, where: Any) -> None:
    changed = change_structure(model, part.model_copy(update={"where": where}), seed=0)
    assert {name for name, module in changed.named_modules() if type(module) is block} == PLACES[where]
    assert parameters(changed) > parameters(model)
    assert np.array_equal(answers(changed, noise(2)), answers(model, noise(2)))


@pytest.mark.parametrize("channels", [24, 64])
@parts
@torch.no_grad()
def test_a_module_computes_the_paper_formula(part: Any, block: Any, channels: int) -> None:
    torch.manual_seed(0)
    made = {
        SqueezeExciteBlock: lambda: SqueezeExciteBlock(channels, 4),
        EfficientAttentionBlock: lambda: EfficientAttentionBlock(channels),
        CbamChannelBlock: lambda: CbamChannelBlock(channels, 4),
    }[block]()
    for parameter in made.parameters():
        parameter.normal_()
    x = torch.randn(2, channels, 5, 7) + torch.randn(2, channels, 1, 1)
    weights = 2 * sigmoid(FORMULAS[type(made)](made, x.numpy()))
    assert weights.std() > 0.1
    np.testing.assert_allclose(made(x), x.numpy() * weights[..., None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(64, 4, 16), (64, 16, 8), (256, 16, 16)])
def test_the_reduction_sets_the_hidden_units(channels: int, reduction: int, hidden: int) -> None:
    for block in (SqueezeExciteBlock(channels, reduction), CbamChannelBlock(channels, reduction)):
        assert block.bottleneck.squeeze.out_channels == hidden
        assert parameters(block) == 2 * channels * hidden + hidden + channels


@pytest.mark.parametrize(("channels", "size"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)])
def test_eca_sees_the_neighbours_that_the_paper_says(channels: int, size: int) -> None:
    assert eca_size(channels) == size  # nearest odd number to (log2(C) + 1) / 2, upwards
    assert parameters(EfficientAttentionBlock(channels)) == size


@parts
def test_a_module_learns_from_the_first_step(part: Any, block: Any) -> None:
    torch.manual_seed(0)
    made = EfficientAttentionBlock(16) if part.kind == "eca" else block(16, 2)
    x = torch.rand(4, 16, 6, 6)
    before = made(x)
    assert torch.equal(before, x)
    (before * torch.arange(16.0).view(-1, 1, 1)).sum().backward()
    with torch.no_grad():
        for parameter in made.parameters():
            assert parameter.grad is not None
            parameter -= 1e-3 * parameter.grad
    assert not torch.allclose(made(x), x, rtol=1e-3)


@parts
def test_the_file_pools_and_weighs_at_every_place(model: nn.Module, part: Any, block: Any, tmp_path: Path) -> None:
    changed = change_structure(model, part, seed=0)
    torch.manual_seed(0)
    for module in changed.modules():
        if type(module) is block:
            for parameter in module.parameters():
                parameter.data.normal_(std=0.3)
    path = export_onnx(changed, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    count = Counter(node.op_type for node in graph.node)
    places = len(PLACES["all"])
    assert count["GlobalAveragePool"] == places
    assert count["MaxPool"] == 3 + (places if part.kind == "cbam" else 0)  # three are SPPF's
    assert not np.allclose(answers(changed, noise(1)), answers(model, noise(1)), rtol=1e-2)
    np.testing.assert_allclose(onnx_answers(path, noise(1)), answers(changed, noise(1)), rtol=1e-3, atol=2e-3)


@parts
def test_the_notes_of_the_parser_are_on_the_pair_and_on_its_block(model: nn.Module, part: Any, block: Any) -> None:
    changed = change_structure(model, part, seed=0)
    pair: Any = changed.get_submodule("model.12")
    assert (pair.f, pair.i, pair.np) == (-1, 12, parameters(pair))
    assert (pair[0].f, pair[0].i) == (-1, 12)  # pruning copies them from there
    assert pair.type == "torch.nn.modules.container.Sequential"


def test_a_section_without_blocks_is_refused(model: nn.Module) -> None:
    once = change_structure(model, SqueezeExcite(where="neck"), seed=0)
    with pytest.raises(ValueError, match=r"no C2f block to put attention behind \(where: neck\)"):
        change_structure(once, SqueezeExcite(where="neck"), seed=0)
