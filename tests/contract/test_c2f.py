"""C2f as two convolutions and back: the same numbers to the last bit, and only the shapes that pruning changed.

The blocks hold small whole numbers in 64 bits, so that every sum is exact in whatever order a CPU adds up.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2f, Conv

from search.stages.c2f import SplitC2f, TwoConvC2f, from_two_convs, to_two_convs
from tests.tiny import answers, noise, snapshot, tiny_model, weights

CHANNELS = 12


def block(*, shortcut: bool = True) -> nn.Sequential:
    """A C2f as Ultralytics' parser leaves it in a model."""
    made = C2f(CHANNELS, 2 * CHANNELS, 2, shortcut)
    for name, value in {"f": -1, "i": 3, "type": "ultralytics.nn.modules.block.C2f", "np": 7}.items():
        setattr(made, name, value)
    return whole_numbers(nn.Sequential(made))


def whole_numbers(model: nn.Sequential) -> nn.Sequential:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, Conv):
            module.conv.weight.data.random_(-3, 4)
            module.act = nn.ReLU()  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight.data, module.bias.data, module.running_mean):
                assert value is not None
                value.random_(1, 4)
            module.eps, module.momentum = 0.0, 0.03
    return model.double().eval()


def picture() -> Tensor:
    return torch.randint(0, 4, (2, CHANNELS, 9, 7), generator=torch.Generator().manual_seed(1)).double()


def two_convs(holder: nn.Sequential) -> TwoConvC2f:
    (two,) = holder
    assert isinstance(two, TwoConvC2f)
    return two


def uneven(kept: int = 5) -> nn.Sequential:
    """A block as two convolutions, the first of which lost all but ``kept`` channels."""
    holder = block()
    to_two_convs(holder)
    two = two_convs(holder)
    two.first = Conv(CHANNELS, kept, 1, 1)
    two.cv2 = Conv(kept + (len(two.m) + 1) * two.second.conv.out_channels, 2 * CHANNELS, 1, 1)
    return whole_numbers(holder)


def by_hand(two: TwoConvC2f, x: Tensor) -> Tensor:
    """The block's definition, written out."""
    parts = [two.first(x), two.second(x)]
    for bottleneck in two.m:
        change = bottleneck.cv2(bottleneck.cv1(parts[-1]))
        parts.append(parts[-1] + change if bottleneck.add else change)
    return two.cv2(torch.cat(parts, 1))


@pytest.mark.parametrize("shortcut", [True, False])
@torch.no_grad()
def test_two_convolutions_compute_the_same_bits_there_and_back(shortcut: bool) -> None:
    holder, x = block(shortcut=shortcut), picture()
    before, expected = snapshot(holder), holder(x)
    assert expected.unique().numel() > 100  # not all cut off by the activation
    to_two_convs(holder)
    assert torch.equal(holder(x), expected)
    assert torch.equal(by_hand(two_convs(holder), x), expected)
    from_two_convs(holder)
    (joined,) = holder
    assert type(joined) is C2f
    assert torch.equal(joined(x), expected)
    assert torch.equal(joined.forward_split(x), expected)
    assert snapshot(holder) == before


@torch.no_grad()
def test_a_whole_model_there_and_back_is_what_it_was() -> None:
    model, images = tiny_model(), noise(2)
    before, expected = weights(model), answers(model, images)
    to_two_convs(model)
    assert not [module for module in model.modules() if isinstance(module, C2f)]
    assert len([module for module in model.modules() if isinstance(module, TwoConvC2f)]) == 8
    np.testing.assert_allclose(answers(model, images), expected, rtol=1e-4, atol=1e-5)
    from_two_convs(model)
    assert weights(model) == before
    types = {name: type(module) for name, module in tiny_model().named_modules()}
    assert {name: type(module) for name, module in model.named_modules()} == types
    assert np.array_equal(answers(model, images), expected)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_a_block_is_kept(training: bool) -> None:
    holder = block().train(training)
    to_two_convs(holder)
    assert {module.training for module in holder.modules()} == {training}
    from_two_convs(holder)
    assert {module.training for module in holder.modules()} == {training}


@torch.no_grad()
def test_running_two_convolutions_in_eval_mode_leaves_their_statistics_alone() -> None:
    holder = block()
    to_two_convs(holder)
    before = weights(holder)
    holder(picture())
    assert weights(holder) == before


@pytest.mark.parametrize("kept", [1, 5, 16])
@torch.no_grad()
def test_unequal_parts_become_a_block_that_cuts_at_the_right_place_and_back(kept: int) -> None:
    holder, x = uneven(kept), picture()
    expected = by_hand(two_convs(holder), x)
    from_two_convs(holder)
    (joined,) = holder
    assert isinstance(joined, SplitC2f)
    assert joined.sizes == (kept, CHANNELS)
    assert torch.equal(joined(x), expected)
    assert torch.equal(joined.forward_split(x), expected)  # what the exporter uses
    before = snapshot(holder)
    to_two_convs(holder)
    assert torch.equal(by_hand(two_convs(holder), x), expected)
    from_two_convs(holder)
    assert snapshot(holder) == before
    assert torch.equal(holder(x), expected)


def test_what_the_parser_noted_on_a_block_stays_true() -> None:
    holder = uneven()
    for norm in (two_convs(holder).first.bn, two_convs(holder).second.bn):
        norm.eps = 1e-3  # Ultralytics' own, not PyTorch's default
    from_two_convs(holder)
    (joined,) = holder
    assert isinstance(joined, SplitC2f)
    noted = vars(joined)
    assert (noted["f"], noted["i"]) == (-1, 3)  # where the model takes its input from
    assert noted["np"] == sum(parameter.numel() for parameter in joined.parameters())
    assert noted["type"] == "search.stages.c2f.SplitC2f"
    assert (joined.cv1.bn.eps, joined.cv1.bn.momentum) == (1e-3, 0.03)


def test_the_parts_have_weights_of_their_own() -> None:
    holder = block()
    (original,) = holder
    before = weights(original)
    to_two_convs(holder)
    two = two_convs(holder)
    two.first.conv.weight.data.zero_()
    two.second.bn.bias.data.zero_()
    assert weights(original) == before
