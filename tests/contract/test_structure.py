"""What every change of structure promises: the steps behind it do with the new blocks what they do with the old."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search.pipeline import Inputs, facts, shape, train, write_leaf
from search.stages.attention import Bottleneck, EfficientAttentionBlock
from search.stages.heads import load_model
from search.stages.prune import prune_channels
from search.stages.structure import STRUCTURES, change_structure
from spaces.parts.structure import Structure
from spaces.recipe import (
    CbamChannel,
    ChannelPrune,
    Depthwise,
    EfficientAttention,
    FeatureDistill,
    Finetune,
    Fp32,
    Ghost,
    Grouped,
    Int8Static,
    Recipe,
    Scale,
    SqueezeExcite,
)
from tests.tiny import SIZE, answers, branches, noise, onnx_answers, parameters, snapshot, weights

PARTS: tuple[Any, ...] = (
    Depthwise(),
    Grouped(groups=4),
    Ghost(),
    SqueezeExcite(reduction=4),
    EfficientAttention(),
    CbamChannel(reduction=4),
    Scale(width=0.75, depth=0.5),
)
ATTENTION = {"se", "eca", "cbam"}
parts = pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)


@pytest.fixture(scope="module")
def inputs(baseline: Path, data: Path) -> Inputs:
    return Inputs(baseline=baseline, data=data)


def recipe(part: Any, **rest: Any) -> Recipe:
    return Recipe(image_size=SIZE, structure=part, **rest)


def test_every_kind_is_here() -> None:
    assert {type(part) for part in PARTS} == set(STRUCTURES)
    kinds = {part.model_fields["kind"].default for part in Structure.__origin__.__args__}  # pyright: ignore
    assert kinds == {"none"} | {part.kind for part in PARTS}


@parts
def test_the_input_is_untouched_and_the_output_repeatable(model: nn.Module, part: Any) -> None:
    before, state = snapshot(model), torch.random.get_rng_state()
    changed = change_structure(model, part, seed=0)
    assert snapshot(model) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weights(change_structure(model, part, seed=0)) == weights(changed) != before
    assert parameters(changed) != parameters(model)
    assert {module.training for module in changed.modules()} == {False}
    outputs = [[last.out_channels for last in kind] for kind in branches(changed)]
    assert outputs == [[last.out_channels for last in kind] for kind in branches(model)]


@parts
def test_the_new_blocks_get_the_recipe_activation(inputs: Inputs, part: Any) -> None:
    shaped = shape(recipe(part, activation="relu"), inputs)
    found = {type(block.act) for block in shaped.modules() if isinstance(block, Conv)}
    assert found - {nn.Identity} == {nn.ReLU}
    assert not [module for module in shaped.modules() if isinstance(module, nn.SiLU)]


@parts
def test_parameters_and_flops_are_those_of_the_new_blocks(model: nn.Module, part: Any) -> None:
    before, after = facts(model, SIZE), facts(change_structure(model, part, seed=0), SIZE)
    if part.kind in ATTENTION:  # more of both, but little
        assert all(before[name] <= after[name] < 1.1 * before[name] for name in before)
    else:
        assert all(after[name] < 0.9 * before[name] for name in before)


@pytest.mark.parametrize("part", [part for part in PARTS if part.kind not in ATTENTION], ids=lambda part: part.kind)
def test_a_checkpoint_is_loaded_as_one_of_others_is(model: nn.Module, part: Any, tmp_path: Path) -> None:
    changed = change_structure(model, part, seed=0)
    torch.save({"model": changed}, tmp_path / "changed.pt")
    again = load_model(tmp_path / "changed.pt")  # which knows no classes of this project
    assert weights(again) == weights(changed)
    assert np.array_equal(answers(again, noise(1)), answers(changed, noise(1)))


@parts
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_removes_channels_consistently(model: nn.Module, part: Any, scope: Any) -> None:
    """A pruned model computes what the unpruned one does with the removed channels silenced."""
    changed = change_structure(model, part, seed=0)
    torch.manual_seed(0)
    for module in changed.modules():  # channels that can be told apart by a value that pruning carries along
        if isinstance(module, Conv):
            module.bn.weight.data.uniform_(0.5, 1.5)
            module.bn.bias.data.uniform_(-0.5, 0.5)
        elif isinstance(module, Bottleneck):
            module.excite.weight.data.normal_()
    prune = ChannelPrune(method="l2", scope=scope, ratio=0.5, round_to=1)
    pruned = prune_channels(changed, prune, image_size=SIZE, batches=[])
    assert parameters(pruned) < 0.5 * parameters(changed)
    expected = answers(silenced(changed, pruned), noise(1))
    assert not np.allclose(expected, answers(changed, noise(1)), rtol=1e-2)
    np.testing.assert_allclose(answers(pruned, noise(1)), expected, rtol=1e-4, atol=1e-3)


def silenced(model: nn.Module, pruned: nn.Module) -> nn.Module:
    """A copy of ``model`` that zeroes every channel that ``pruned`` no longer has."""
    copy = deepcopy(model)
    left = dict(pruned.named_parameters())
    for name, module in copy.named_modules():
        if isinstance(module, Conv):
            module.register_forward_hook(silencer(torch.isin(module.bn.weight, left[f"{name}.bn.weight"])))
        elif isinstance(module, Bottleneck):
            assert module.squeeze.bias is not None
            kept = torch.isin(module.squeeze.bias, left[f"{name}.squeeze.bias"])
            module.squeeze.register_forward_hook(silencer(kept))
    return copy


def silencer(kept: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda module, inputs, output: output * kept.view(-1, 1, 1)


@parts
def test_it_trains_reloads_and_is_written_in_float_and_8_bits(inputs: Inputs, part: Any, tmp_path: Path) -> None:
    plan = recipe(
        part,
        activation="relu",
        prune=ChannelPrune(ratio=0.25, round_to=4),
        finetune=Finetune(epochs=1, batch=4),
    )
    shaped = shape(plan, inputs)
    trained = train(shaped, plan, inputs)
    assert {n: v.shape for n, v in trained.state_dict().items()} == {n: v.shape for n, v in shaped.state_dict().items()}
    frozen = {name for name, digest in weights(trained).items() if weights(shaped)[name] == digest}
    assert not {name for name in frozen if name.endswith("weight") and "dfl" not in name}
    assert facts(trained, SIZE)["parameters"] == parameters(shaped)
    stream = io.BytesIO()
    torch.save(trained, stream)
    again = torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    images = noise(2)
    expected = answers(again, images)
    assert np.array_equal(expected, answers(trained, images))
    fused = deepcopy(trained).fuse(verbose=False)  # pyright: ignore
    np.testing.assert_allclose(answers(fused, images), expected, rtol=1e-4, atol=1e-3)
    float_file = write_leaf(trained, plan.model_copy(update={"quantize": Fp32()}), inputs, folder=tmp_path / "a" / "f")
    np.testing.assert_allclose(onnx_answers(float_file, images), expected, rtol=1e-3, atol=5e-3)
    int8 = Int8Static(images=4)
    int8_file = write_leaf(trained, plan.model_copy(update={"quantize": int8}), inputs, folder=tmp_path / "a" / "q")
    assert int8_file.stat().st_size < 0.7 * float_file.stat().st_size
    check_int8(int8_file)
    found = onnx_answers(int8_file, images)
    assert np.abs(found[:, 4:] - expected[:, 4:]).mean() < 0.05  # scores


def check_int8(path: Path) -> None:
    """Every convolution of the file computes on 8-bit values, but for the box decoder's."""
    graph = onnx.load(path).graph
    made = {output: node for node in graph.node for output in node.output}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    assert convs
    for node in convs:
        if "dfl" not in node.name:
            assert {made[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}, node.name


def test_attention_learns_with_a_teacher_too(inputs: Inputs) -> None:
    teaching = FeatureDistill(weight=0.3)
    plan = recipe(EfficientAttention(), finetune=Finetune(epochs=1, batch=4), distill=teaching)
    trained = train(shape(plan, inputs), plan, inputs)
    blocks = [module for module in trained.modules() if isinstance(module, EfficientAttentionBlock)]
    assert len(blocks) == 14
    assert all(block.conv.weight.abs().max() > 0 for block in blocks)
