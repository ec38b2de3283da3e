"""C2f as two convolutions and back: the same numbers to the last bit, and only the shapes that pruning changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2f, Conv

from search.stages.c2f import SplitC2f, TwoConvC2f, from_two_convs, to_two_convs
from tests.tiny import answers, noise, snapshot, tiny_model, weights


def block(channels: int = 12, *, repeats: int = 2, shortcut: bool = True) -> nn.Sequential:
    """A C2f as Ultralytics' parser leaves it in a model, with batch norms that differ."""
    torch.manual_seed(0)
    made = C2f(channels, 2 * channels, repeats, shortcut)
    made.f, made.i, made.type, made.np = -1, 3, "ultralytics.nn.modules.block.C2f", 7  # pyright: ignore
    holder = nn.Sequential(made)
    _randomise(holder)
    return holder.eval()


def _randomise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert value is not None
                value.uniform_(0.5, 1.5)
            module.eps, module.momentum = 1e-3, 0.03


def uneven(kept: int = 5) -> tuple[nn.Sequential, Tensor]:
    """A C2f whose first part lost all but ``kept`` channels, with an image's worth of input."""
    holder = block()
    to_two_convs(holder)
    two = holder[0]
    assert isinstance(two, TwoConvC2f)
    whole, parts = two.second.conv.out_channels, len(two.m) + 1
    two.first = Conv(two.first.conv.in_channels, kept, 1, 1)
    two.cv2 = Conv(kept + parts * whole, two.cv2.conv.out_channels, 1, 1)
    _randomise(holder)
    return holder.eval(), torch.rand(2, 12, 9, 7)


def by_hand(two: TwoConvC2f, x: Tensor) -> Tensor:
    """The block's definition, written out."""
    parts = [two.first(x), two.second(x)]
    for bottleneck in two.m:
        last = parts[-1]
        change = bottleneck.cv2(bottleneck.cv1(last))
        parts.append(last + change if bottleneck.add else change)
    return two.cv2(torch.cat(parts, 1))


@pytest.mark.parametrize("shortcut", [True, False])
@torch.no_grad()
def test_two_convolutions_compute_the_same_bits_there_and_back(shortcut: bool) -> None:
    holder, x = block(shortcut=shortcut), torch.rand(2, 12, 9, 7)
    before, expected = snapshot(holder), holder(x)
    to_two_convs(holder)
    assert isinstance(holder[0], TwoConvC2f)
    assert torch.equal(holder(x), expected)
    assert torch.equal(by_hand(holder[0], x), expected)
    from_two_convs(holder)
    assert torch.equal(holder(x), expected)
    assert type(holder[0]) is C2f
    assert torch.equal(holder[0].forward_split(x), expected)
    assert snapshot(holder) == before


@torch.no_grad()
def test_a_whole_model_there_and_back_is_what_it_was() -> None:
    model = tiny_model()
    images, before = noise(2), weights(model)
    expected = answers(model, images)
    to_two_convs(model)
    assert not [module for module in model.modules() if isinstance(module, C2f)]
    assert len([module for module in model.modules() if isinstance(module, TwoConvC2f)]) == 8
    assert np.array_equal(answers(model, images), expected)
    from_two_convs(model)
    assert weights(model) == before
    assert [type(m) for m in model.modules()] == [type(m) for m in tiny_model().modules()]
    assert np.array_equal(answers(model, images), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_block_is_kept(training: bool) -> None:
    holder = block().train(training)
    to_two_convs(holder)
    assert {module.training for module in holder.modules()} == {training}
    from_two_convs(holder)
    assert {module.training for module in holder.modules()} == {training}


@torch.no_grad()
def test_running_a_model_in_eval_mode_leaves_its_statistics_alone() -> None:
    holder = block()
    to_two_convs(holder)
    before = weights(holder)
    holder(torch.rand(2, 12, 9, 7))
    assert weights(holder) == before


@torch.no_grad()
def test_unequal_parts_become_a_block_that_cuts_at_the_right_place_and_back() -> None:
    holder, x = uneven()
    two = holder[0]
    assert isinstance(two, TwoConvC2f)
    expected = by_hand(two, x)
    from_two_convs(holder)
    joined = holder[0]
    assert isinstance(joined, SplitC2f)
    assert joined.sizes == (5, 12)
    assert torch.equal(joined(x), expected)
    assert torch.equal(joined.forward_split(x), expected)  # what the exporter uses
    before = snapshot(holder)
    to_two_convs(holder)
    assert torch.equal(holder(x), expected)
    from_two_convs(holder)
    assert snapshot(holder) == before
    assert torch.equal(holder(x), expected)


def test_what_the_parser_noted_on_a_block_stays_true() -> None:
    holder, _ = uneven()
    from_two_convs(holder)
    joined = holder[0]
    assert (joined.f, joined.i) == (-1, 3)  # where the model takes its input from
    assert joined.np == sum(parameter.numel() for parameter in joined.parameters())
    assert joined.type == "search.stages.c2f.SplitC2f"
    norm = joined.cv1.bn  # pyright: ignore
    assert (norm.eps, norm.momentum) == (1e-3, 0.03)  # pyright: ignore


def test_the_parts_have_weights_of_their_own() -> None:
    holder = block()
    original = holder[0]
    before = weights(original)
    to_two_convs(holder)
    two = holder[0]
    assert isinstance(two, TwoConvC2f)
    two.first.conv.weight.data.zero_()
    two.second.bn.bias.data.zero_()
    assert weights(original) == before
