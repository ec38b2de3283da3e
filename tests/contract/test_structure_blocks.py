"""Depthwise-separable, grouped and ghost blocks: what the file computes, and where its weights come from."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from ultralytics.nn.modules import Conv, GhostConv

from search.stages.blocks import grouped, nearest_factors
from search.stages.export import export_onnx
from search.stages.structure import change_structure
from spaces.recipe import Depthwise, Export, Ghost, Grouped
from tests.tiny import SIZE, answers, noise, onnx_answers, parameters

# The layers of YOLOv8's architecture file that hold 3x3 blocks, by section; layer 0 is the stem.
SECTIONS = {
    "backbone": {1, 2, 3, 4, 5, 6, 7, 8},
    "neck": {12, 15, 16, 18, 19, 21},
    "head": {22},
    "all": {1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 16, 18, 19, 21, 22},
}


def full_blocks(model: nn.Module, where: str = "all") -> dict[str, Conv]:
    """The blocks of a section that may be replaced, by name."""
    blocks = {name: block for name, block in model.named_modules() if isinstance(block, Conv)}
    full = {name: block for name, block in blocks.items() if block.conv.kernel_size == (3, 3)}
    return {name: block for name, block in full.items() if layer_of(name) in SECTIONS[where]}


def layer_of(name: str) -> int:
    return int(name.split(".")[1])


def convolutions(model: nn.Module, path: Path) -> list[dict[str, Any]]:
    """Every convolution of the model's file, which computes what the model does."""
    export_onnx(model, Export(fast_dfl=False), image_size=SIZE, path=path)
    np.testing.assert_allclose(onnx_answers(path, noise(1)), answers(model, noise(1)), rtol=1e-4, atol=1e-3)
    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found: list[dict[str, Any]] = []
    for node in graph.node:
        if node.op_type == "Conv":
            values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            found.append(
                {
                    "layer": int(node.name.split("/")[1].removeprefix("model.")),
                    "shape": shapes[node.input[1]],  # (O, I / groups, height, width)
                    "groups": values.get("group", 1),
                    "strides": tuple(values["strides"]),
                    "input": node.input[0],
                    "output": node.output[0],
                }
            )
    return found


@pytest.mark.parametrize("where", ["neck", "all"])
def test_the_file_has_a_depthwise_and_a_pointwise_convolution_for_each_full_one(
    model: nn.Module, where: Any, tmp_path: Path
) -> None:
    convs = convolutions(change_structure(model, Depthwise(where=where), seed=0), tmp_path / "model.onnx")
    replaced = full_blocks(model, where).values()
    depthwise = [conv for conv in convs if conv["groups"] > 1]
    assert {conv["layer"] for conv in depthwise} == SECTIONS[where]
    found = []
    for conv in depthwise:
        channels = conv["groups"]
        assert conv["shape"] == (channels, 1, 3, 3)  # one kernel for each channel
        (follower,) = [other for other in convs if other["input"] == conv["output"]]  # nothing between the two
        assert follower["shape"][1:] == (channels, 1, 1)
        found.append((follower["shape"][0], channels, conv["strides"]))
    assert sorted(found) == sorted((b.conv.out_channels, b.conv.in_channels, b.conv.stride) for b in replaced)
    full = [conv for conv in convs if conv["groups"] == 1 and conv["shape"][2:] == (3, 3)]
    assert len(full) == 1 + len(full_blocks(model)) - len(replaced)  # the stem stays


@pytest.mark.parametrize("where", SECTIONS)
@pytest.mark.parametrize("kind", [Depthwise, Grouped, Ghost])
def test_exactly_the_blocks_of_the_section_are_replaced(model: nn.Module, kind: Any, where: Any) -> None:
    changed = change_structure(model, kind(where=where), seed=0)
    left: set[str] = set()
    for name, block in full_blocks(model).items():
        own = changed.get_submodule(name)
        if isinstance(own, Conv) and own.conv.groups == 1:
            assert torch.equal(own.conv.weight, block.conv.weight)
            left.add(name)
    assert left == set(full_blocks(model)) - set(full_blocks(model, where))


def test_depthwise_parameters_are_counted_by_hand(model: nn.Module) -> None:
    saved = 0
    for block in full_blocks(model).values():
        outputs, inputs = block.conv.out_channels, block.conv.in_channels
        saved += 9 * outputs * inputs - (9 * inputs + outputs * inputs)
    assert parameters(change_structure(model, Depthwise(), seed=0)) == parameters(model) - saved


def test_the_factors_are_the_nearest_by_numpy() -> None:
    kernel = np.random.default_rng(0).standard_normal((6, 4, 3, 3)).astype(np.float32)
    depth, point = (factor.numpy() for factor in nearest_factors(torch.from_numpy(kernel)))
    assert depth.shape == (4, 1, 3, 3) and point.shape == (6, 4, 1, 1)
    # By Eckart and Young no product is nearer than by all singular values but the first, channel by channel.
    rest = sum((np.linalg.svd(kernel[:, i].reshape(6, 9), compute_uv=False)[1:] ** 2).sum() for i in range(4))
    assert ((kernel - point * depth[:, 0]) ** 2).sum() == pytest.approx(rest, rel=1e-5)
    for i in range(4):  # each factor is the least-squares answer to the other one
        taps, column, row = kernel[:, i].reshape(6, 9), point[:, i].reshape(6, 1), depth[i].reshape(9, 1)
        np.testing.assert_allclose(np.linalg.lstsq(column, taps)[0], row.T, atol=1e-5)
        np.testing.assert_allclose(np.linalg.lstsq(row, taps.T)[0], column.T, atol=1e-5)
    np.testing.assert_allclose((depth**2).sum((1, 2, 3)), 1, atol=1e-5)


def test_kernels_that_factor_lose_nothing(model: nn.Module) -> None:
    rng = np.random.default_rng(0)
    exact = deepcopy(model)
    for block in full_blocks(exact).values():
        outputs, inputs = block.conv.out_channels, block.conv.in_channels
        kernel = rng.standard_normal((outputs, inputs, 1, 1)) * rng.standard_normal((1, inputs, 3, 3))
        block.conv.weight.data = torch.from_numpy(kernel / 3 / inputs**0.5).float()
    changed = change_structure(exact, Depthwise(), seed=0)
    assert parameters(changed) < parameters(exact)
    np.testing.assert_allclose(answers(changed, noise(2)), answers(exact, noise(2)), rtol=1e-4, atol=1e-3)


def test_the_file_has_grouped_convolutions(model: nn.Module, tmp_path: Path) -> None:
    convs = convolutions(change_structure(model, Grouped(groups=4), seed=0), tmp_path / "model.onnx")
    shapes = [(b.conv.out_channels, b.conv.in_channels // 4, 3, 3) for b in full_blocks(model).values()]
    assert sorted(conv["shape"] for conv in convs if conv["groups"] == 4) == sorted(shapes)
    assert {conv["layer"] for conv in convs if conv["groups"] == 4} == SECTIONS["all"]
    assert {conv["groups"] for conv in convs} == {1, 4}


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_grouped_weights_are_the_block_diagonal(model: nn.Module, groups: Any) -> None:
    changed = change_structure(model, Grouped(groups=groups), seed=0)
    seen: set[int] = set()
    for name, block in full_blocks(model).items():
        own = changed.get_submodule(f"{name}.conv")
        assert isinstance(own, nn.Conv2d)
        outputs, inputs = block.conv.out_channels, block.conv.in_channels
        inside = np.kron(np.eye(own.groups), np.ones((outputs // own.groups, inputs // own.groups))) == 1  # (O, I)
        dense = np.zeros((outputs, inputs, 3, 3), dtype=np.float32)
        dense[inside] = own.weight.detach().numpy().reshape(-1, 3, 3)
        np.testing.assert_array_equal(dense, block.conv.weight.detach().numpy() * inside[..., None, None])
        assert min(inputs, outputs) >= 2 * own.groups
        seen.add(own.groups)
    assert max(seen) == groups


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [(64, 64, 8), (64, 81, None), (12, 64, 4), (8, 64, 4)],  # 81 shares no factor; 8 would be depthwise
)
def test_groups_that_do_not_fit_are_fewer_or_none(inputs: int, outputs: int, expected: int | None) -> None:
    made = grouped(Conv(inputs, outputs, 3), 8)
    assert (made.conv.groups if made else None) == expected


def test_the_file_has_ghost_modules(model: nn.Module, tmp_path: Path) -> None:
    convs = convolutions(change_structure(model, Ghost(where="neck"), seed=0), tmp_path / "model.onnx")
    replaced = full_blocks(model, "neck")
    cheap = [conv for conv in convs if conv["groups"] > 1]
    assert sorted(conv["shape"] for conv in cheap) == sorted(
        (b.conv.out_channels // 2, 1, 5, 5) for b in replaced.values()
    )  # fmt: skip
    assert {conv["layer"] for conv in cheap} == SECTIONS["neck"]
    primary = [(b.conv.out_channels // 2, b.conv.in_channels, 3, 3) for b in replaced.values()]
    others = [tuple(b.conv.weight.shape) for name, b in full_blocks(model).items() if name not in replaced]
    stem = (model.get_submodule("model.0.conv").out_channels, 3, 3, 3)
    found = sorted(conv["shape"] for conv in convs if conv["groups"] == 1 and conv["shape"][2:] == (3, 3))
    assert found == sorted([*primary, *others, stem])


@torch.no_grad()
def test_half_of_a_ghost_module_is_what_the_block_was_and_the_rest_starts_as_its_copy(model: nn.Module) -> None:
    changed = change_structure(model, Ghost(where="backbone"), seed=0)
    block, made = model.get_submodule("model.3"), changed.get_submodule("model.3")
    assert isinstance(block, Conv) and isinstance(made, GhostConv)
    x = torch.randn(2, block.conv.in_channels, 12, 12)
    expected, found = block.eval()(x), made.eval()(x)
    half = expected.shape[1] // 2
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[:, :half], expected[:, :half], rtol=1e-5, atol=1e-5)
    scale, shift = (value[half:].view(-1, 1, 1) for value in (block.bn.weight, block.bn.bias))
    copies = expected[:, :half] / np.sqrt(1 + block.bn.eps) * scale + shift
    np.testing.assert_allclose(found[:, half:], nn.functional.silu(copies), rtol=1e-4, atol=1e-4)


def test_a_block_with_an_odd_number_of_channels_is_no_ghost(model: nn.Module) -> None:
    odd = deepcopy(model)
    for branch in odd.get_submodule("model.22.cv3").children():
        second, last = (branch.get_submodule(name) for name in ("1", "2"))
        assert isinstance(second, Conv) and isinstance(last, nn.Conv2d)
        branch[1] = Conv(second.conv.in_channels, 33, 3).eval()  # pyright: ignore
        branch[2] = nn.Conv2d(33, last.out_channels, 1)  # pyright: ignore
    changed = change_structure(odd, Ghost(where="head"), seed=0)
    kinds = [type(changed.get_submodule(f"model.22.cv3.0.{index}")) for index in range(3)]
    assert kinds == [GhostConv, Conv, nn.Conv2d]


KINDS: list[tuple[Any, Callable[[nn.Module], bool]]] = [
    (Depthwise(), lambda module: isinstance(module, nn.Sequential)),
    (Grouped(groups=2), lambda module: isinstance(module, Conv) and module.conv.groups == 2),
    (Ghost(), lambda module: isinstance(module, GhostConv)),
]


@pytest.mark.parametrize(("part", "is_kind"), KINDS, ids=[part.kind for part, _ in KINDS])
def test_the_notes_of_the_parser_on_a_replaced_layer_are_true(
    model: nn.Module, part: Any, is_kind: Callable[[nn.Module], bool]
) -> None:
    old, new = (cast(Any, m.get_submodule("model.3")) for m in (model, change_structure(model, part, seed=0)))
    assert is_kind(new)
    assert (new.f, new.i) == (old.f, old.i) == (-1, 3)
    assert new.np == parameters(new) < old.np
    assert new.type == f"{type(new).__module__}.{type(new).__name__}"


def test_a_section_without_full_convolutions_is_refused(model: nn.Module) -> None:
    changed = change_structure(model, Depthwise(where="head"), seed=0)
    with pytest.raises(ValueError, match=r"no 3x3 convolution to replace \(where: head\)"):
        change_structure(changed, Ghost(where="head"), seed=0)
