"""Pruning: channels are gone, those that matter least, and the rest computes what it computed before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import ceil
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import C2f, Conv

from search.pipeline import facts
from search.stages.c2f import SplitC2f, TwoConvC2f
from search.stages.export import export_onnx
from search.stages.heads import load_model
from search.stages.prune import prune_channels
from spaces.recipe import ChannelPrune, Export
from tests.tiny import (
    BINS,
    CLASSES,
    OUTPUT,
    SIZE,
    answers,
    branches,
    conv_shapes,
    head,
    noise,
    onnx_answers,
    parameters,
    snapshot,
    weights,
)

ROOT = Path(__file__).resolve().parents[2]
Method = Literal["l1", "l2", "bn_scale", "taylor", "lamp"]
Pruned = Callable[[ChannelPrune], nn.Module]
METHODS: tuple[Method, ...] = get_args(ChannelPrune.model_fields["method"].annotation)
LAYER = ChannelPrune(method="l2", ratio=0.5, round_to=8)
GLOBAL = ChannelPrune(method="l2", ratio=0.5, round_to=4, scope="global")
EVERY = [
    *(ChannelPrune(method=method, ratio=0.5, round_to=8) for method in METHODS),
    *(ChannelPrune(method=method, ratio=0.5, round_to=4, scope="global") for method in METHODS),
]
every = pytest.mark.parametrize("part", EVERY, ids=lambda part: f"{part.method}-{part.scope}")
both = pytest.mark.parametrize("part", [LAYER, GLOBAL], ids=["layer", "global"])


@pytest.fixture(scope="module")
def pruned(model: nn.Module, batches: list[dict[str, Any]]) -> Pruned:
    """The baseline pruned as a recipe says; each recipe is done once."""
    done: dict[str, nn.Module] = {}

    def prune(part: ChannelPrune) -> nn.Module:
        key = part.model_dump_json()
        if key not in done:
            done[key] = prune_channels(model, part, image_size=SIZE, batches=batches)
        return done[key]

    return prune


def blocks(model: nn.Module) -> dict[str, Conv]:
    """Every convolution with a batch norm: all but the head's last ones and the box decoder."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Conv)}


def channels(model: nn.Module) -> dict[str, int]:
    return {name: block.conv.out_channels for name, block in blocks(model).items()}


def kept(model: nn.Module, pruned: nn.Module) -> dict[str, list[int]]:
    """Which channels of each block are left, recognised by their running means, all of which differ."""
    old = blocks(model)
    found: dict[str, list[int]] = {}
    for name, block in blocks(pruned).items():
        means: list[float] = norms(old[name])["running_mean"].tolist()
        assert len(set(means)) == len(means)
        found[name] = [means.index(mean) for mean in norms(block)["running_mean"].tolist()]
    return found


def norms(block: Conv) -> dict[str, Tensor]:
    return {name: value for name, value in block.bn.state_dict().items() if value.ndim}


def macs(model: nn.Module) -> int:
    """Multiplications of all convolutions for one picture, counted while it passes."""
    copy, counts = deepcopy(model), list[int]()

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        counts.append(output.numel() * module.weight[0].numel())

    for module in copy.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    answers(copy, noise(1))
    return sum(counts)


@contextmanager
def silenced(model: nn.Module, left: dict[str, list[int]]) -> Iterator[nn.Module]:
    """The model with all but the channels ``left`` of each block put to zero: pruning with a mask."""

    def hook(keep: list[int]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def silence(_: nn.Module, __: object, output: Tensor) -> Tensor:
            mask = torch.zeros(output.shape[1])
            mask[keep] = 1
            return output * mask[:, None, None]

        return silence

    handles = [block.register_forward_hook(hook(left[name])) for name, block in blocks(model).items()]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


@every
def test_the_model_is_smaller_and_answers_in_the_same_shape(
    model: nn.Module, pruned: Pruned, part: ChannelPrune
) -> None:
    small = pruned(part)
    assert parameters(small) < 0.75 * parameters(model)
    assert macs(small) < 0.75 * macs(model)
    known, before = facts(small, SIZE), facts(model, SIZE)
    assert known["parameters"] == parameters(small)
    assert known["flops"] / before["flops"] == pytest.approx(macs(small) / macs(model), rel=0.1)
    found = answers(small, noise(2))
    assert found.shape == (2, *OUTPUT[1:])
    assert np.isfinite(found).all()


@every
def test_channel_counts_follow_the_recipe(model: nn.Module, pruned: Pruned, part: ChannelPrune) -> None:
    old = channels(model)
    halved = {f"{name}.cv1" for name, module in model.named_modules() if isinstance(module, C2f)}
    for name, new in channels(pruned(part)).items():
        assert new % part.round_to == 0
        if part.scope == "layer":
            parts = 2 if name in halved else 1  # the parts of a C2f's first block are pruned one by one
            share = int(old[name] / parts * (1 - part.ratio))
            assert new == parts * max(share - share % part.round_to, part.round_to)
        else:
            assert ceil(old[name] * (1 - part.max_ratio)) <= new <= old[name]


@every
def test_what_is_left_computes_what_it_did_with_the_other_channels_silenced(
    model: nn.Module, pruned: Pruned, part: ChannelPrune
) -> None:
    small = pruned(part)
    with silenced(deepcopy(model), kept(model, small)) as masked:
        expected = answers(masked, noise(2))
    np.testing.assert_allclose(answers(small, noise(2)), expected, rtol=1e-3, atol=1e-3)


@every
def test_no_number_that_is_left_was_changed(model: nn.Module, pruned: Pruned, part: ChannelPrune) -> None:
    small, old = pruned(part), blocks(model)
    left = kept(model, small)
    for name, block in blocks(small).items():
        rows = left[name]
        assert rows == sorted(set(rows))
        original = norms(old[name])
        assert all(torch.equal(value, original[key][rows]) for key, value in norms(block).items())
        # Every column of the weight is one of the original's, in the same order.
        columns = list(block.conv.weight.data.transpose(0, 1))
        candidates = iter(old[name].conv.weight.data[rows].transpose(0, 1))
        assert all(any(torch.equal(column, candidate) for candidate in candidates) for column in columns)


@every
def test_the_head_still_puts_out_every_class_and_bin(model: nn.Module, pruned: Pruned, part: ChannelPrune) -> None:
    for old, new, count in zip(branches(model), branches(pruned(part)), (4 * BINS, CLASSES), strict=True):
        for before, after in zip(old, new, strict=True):
            assert after.out_channels == count
            assert after.bias is not None and before.bias is not None
            assert torch.equal(after.bias, before.bias)
            assert after.in_channels < before.in_channels
    assert torch.equal(next(head(pruned(part)).dfl.parameters()).flatten(), torch.arange(BINS).float())


@every
def test_nothing_is_left_of_the_work(model: nn.Module, pruned: Pruned, part: ChannelPrune) -> None:
    small = pruned(part)
    assert not [module for module in small.modules() if isinstance(module, TwoConvC2f)]
    assert len([module for module in small.modules() if isinstance(module, C2f)]) == 8
    assert not [module for module in small.modules() if module.training]
    assert not [module for module in small.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert all(parameter.grad is None for parameter in small.parameters())
    frozen = {name for name, parameter in small.named_parameters() if not parameter.requires_grad}
    assert frozen == {"model.22.dfl.conv.weight"}
    assert not [name for name, _ in small.named_buffers() if "mask" in name]
    assert small.state_dict().keys() == model.state_dict().keys()


@every
def test_the_input_is_untouched_and_the_result_the_same_each_time(
    model: nn.Module, batches: list[dict[str, Any]], pruned: Pruned, part: ChannelPrune
) -> None:
    before = snapshot(model)
    held = deepcopy(batches)
    again = prune_channels(model, part, image_size=SIZE, batches=batches)
    assert snapshot(model) == before
    assert weights(again) == weights(pruned(part))
    for batch, same in zip(batches, held, strict=True):
        assert batch.keys() == same.keys()
        assert all(torch.equal(value, same[key]) for key, value in batch.items() if isinstance(value, Tensor))


def test_equal_ratios_leave_plain_blocks_and_a_ranking_of_all_leaves_unequal_ones(pruned: Pruned) -> None:
    assert {type(module) for module in pruned(LAYER).modules() if isinstance(module, C2f)} == {C2f}
    uneven = [module for module in pruned(GLOBAL).modules() if isinstance(module, SplitC2f)]
    assert uneven and all(block.sizes[0] != block.sizes[1] for block in uneven)


@pytest.mark.parametrize("round_to", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_higher_ratio_never_leaves_a_larger_model(model: nn.Module, scope: Any, round_to: Any) -> None:
    sizes: list[int] = [parameters(model)]
    for ratio in (0.3, 0.55, 0.85):
        part = ChannelPrune(method="bn_scale", ratio=ratio, scope=scope, round_to=round_to)
        small = prune_channels(model, part, image_size=SIZE, batches=[])
        old = channels(model)
        for name, new in channels(small).items():
            assert new % round_to == 0 or new == old[name] < round_to
        sizes.append(parameters(small))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


@pytest.mark.parametrize(("round_to", "expected"), [(1, 7), (4, 8), (8, 8), (16, 16)])
def test_a_ranking_of_all_takes_no_more_than_the_maximum_from_a_layer(
    model: nn.Module, round_to: Any, expected: int
) -> None:
    worthless, strong = deepcopy(model), 20  # of 32 channels, all but one that count for nothing
    rest = [channel for channel in range(32) if channel != strong]
    first, second = (blocks(worthless)[f"model.22.cv3.0.{layer}"] for layer in (0, 1))
    first.conv.weight.data[rest] *= 1e-3
    first.bn.weight.data[rest] *= 1e-3
    second.conv.weight.data[:, rest] *= 1e-3
    part = ChannelPrune(method="l2", ratio=0.3, scope="global", round_to=round_to, max_ratio=0.8)
    small = prune_channels(worthless, part, image_size=SIZE, batches=[])
    left = kept(worthless, small)["model.22.cv3.0.0"]
    assert strong in left
    assert len(left) == expected  # a fifth of 32 is 6.4


@pytest.mark.parametrize(
    "method", ["l1", "l2", "lamp", "bn_scale", "taylor"]
)  # SCORES; the others have a file of theirs
def test_the_channels_that_stay_are_the_most_important(
    model: nn.Module, batches: list[dict[str, Any]], method: Method
) -> None:
    part = ChannelPrune(method=method, ratio=0.4, round_to=1)
    small = prune_channels(model, part, image_size=SIZE, batches=batches)
    scores = SCORES[method](model, batches)
    best = np.argsort(scores)[::-1][: int(len(scores) * (1 - part.ratio))]
    assert kept(model, small)["model.22.cv3.0.0"] == sorted(best.tolist())


def magnitude(power: int) -> Callable[[nn.Module, Sequence[Any]], np.ndarray]:
    """The norm of all that belongs to a channel: its filter, its batch norm, and its column in the next filter."""

    def score(model: nn.Module, _: Sequence[Any]) -> np.ndarray:
        first, second = (blocks(model)[f"model.22.cv3.0.{layer}"] for layer in (0, 1))
        own, following = (np.abs(block.conv.weight.detach().numpy()) ** power for block in (first, second))
        scale = np.abs(first.bn.weight.detach().numpy()) ** power
        return own.sum((1, 2, 3)) + scale + following.sum((0, 2, 3))

    return score


def bn_scale(model: nn.Module, _: Sequence[Any]) -> np.ndarray:
    return np.abs(blocks(model)["model.22.cv3.0.0"].bn.weight.detach().numpy())


def taylor(model: nn.Module, batches: Sequence[Any]) -> np.ndarray:
    """How much the loss changes, to first order, when a channel's filter and its column in the next go to zero."""
    copy: Any = deepcopy(model).requires_grad_(True)
    copy.args = get_cfg()
    for batch in batches:
        copy.loss(deepcopy(batch))[0].sum().backward()
    changes: list[np.ndarray] = []
    for layer in (0, 1):
        weight = blocks(copy)[f"model.22.cv3.0.{layer}"].conv.weight
        assert weight.grad is not None
        changes.append(np.abs((weight * weight.grad).detach().numpy()))
    return changes[0].sum((1, 2, 3)) + changes[1].sum((0, 2, 3))


SCORES: dict[Method, Callable[[nn.Module, Sequence[Any]], np.ndarray]] = {
    "l1": magnitude(1),
    "l2": magnitude(2),
    "lamp": magnitude(2),  # orders one layer as L2 does
    "bn_scale": bn_scale,
    "taylor": taylor,
}


def test_taylor_needs_labelled_batches(model: nn.Module) -> None:
    with pytest.raises(AssertionError, match="batches"):
        prune_channels(model, ChannelPrune(method="taylor", ratio=0.5), image_size=SIZE, batches=[])


def test_another_input_size_gives_the_same_model(model: nn.Module, pruned: Pruned) -> None:
    assert weights(prune_channels(model, LAYER, image_size=96, batches=[])) == weights(pruned(LAYER))


@both
def test_fused_it_computes_the_same(pruned: Pruned, part: ChannelPrune) -> None:
    small = pruned(part)
    fused: Any = deepcopy(small)
    fused.fuse(verbose=False)
    assert not [module for module in fused.modules() if isinstance(module, nn.BatchNorm2d)]
    np.testing.assert_allclose(answers(fused, noise(2)), answers(small, noise(2)), rtol=1e-3, atol=1e-3)


@both
def test_the_file_has_the_shapes_of_the_pruned_layers(pruned: Pruned, part: ChannelPrune, tmp_path: Path) -> None:
    small = pruned(part)
    before = snapshot(small)
    path = export_onnx(small, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "model.onnx")
    assert snapshot(small) == before
    convolutions = {name: m for name, m in small.named_modules() if isinstance(m, nn.Conv2d)}
    assert conv_shapes(path) == {f"{name}.weight": tuple(m.weight.shape) for name, m in convolutions.items()}
    np.testing.assert_allclose(onnx_answers(path, noise(2)), answers(small, noise(2)), rtol=1e-4, atol=1e-3)


@both
def test_it_can_be_pruned_again(pruned: Pruned, part: ChannelPrune) -> None:
    small = pruned(part)
    smaller = prune_channels(small, LAYER.model_copy(update={"round_to": 1}), image_size=SIZE, batches=[])
    assert parameters(smaller) < 0.5 * parameters(small)
    assert answers(smaller, noise(1)).shape == OUTPUT


def test_plain_blocks_pass_the_loader_that_refuses_foreign_code(pruned: Pruned, tmp_path: Path) -> None:
    torch.save({"model": pruned(LAYER)}, tmp_path / "pruned.pt")
    loaded = load_model(tmp_path / "pruned.pt")
    assert np.array_equal(answers(loaded, noise(2)), answers(pruned(LAYER), noise(2)))


def test_a_new_process_reads_unequal_blocks_back(pruned: Pruned, tmp_path: Path) -> None:
    torch.save(pruned(GLOBAL), tmp_path / "pruned.pt")
    np.save(tmp_path / "image.npy", noise(1)[0])
    script = (
        "import numpy, torch\n"
        "torch.set_num_threads(1)\n"
        "model = torch.load('pruned.pt', weights_only=False)\n"
        "assert any(type(module).__name__ == 'SplitC2f' for module in model.modules())\n"
        "with torch.no_grad():\n"
        "    numpy.save('found.npy', model(torch.from_numpy(numpy.load('image.npy')))[0].numpy())\n"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), answers(pruned(GLOBAL), noise(1)), rtol=1e-5, atol=1e-5)
