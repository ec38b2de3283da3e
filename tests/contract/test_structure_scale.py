"""Scaled models: the shapes of the family's own smaller members, and consistent slices of the weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2f, Conv, Detect
from ultralytics.nn.modules.block import Bottleneck
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import ROOT, YAML

from search.stages.export import export_onnx
from search.stages.scale import scaled_yaml
from search.stages.structure import change_structure
from spaces.recipe import Export, Scale
from tests.tiny import CLASSES, SIZE, answers, conv_shapes, noise, onnx_answers, parameters, tiny_model, weights


def family(depth: float, width: float) -> DetectionModel:
    """YOLOv8 with multiples of its own."""
    content: Any = YAML.load(str(ROOT / "cfg/models/v8/yolov8.yaml"))
    return DetectionModel(content | {"nc": CLASSES, "scale": "n", "scales": {"n": [depth, width, 1024]}}, verbose=False)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("width", "depth"), [(0.5, 1.0), (1.0, 0.5), (0.7, 0.4)])
def test_the_shapes_are_those_of_the_family(model: nn.Module, width: float, depth: float) -> None:
    changed = change_structure(model, Scale(width=width, depth=depth), seed=0)
    expected = family(0.33 * depth, 0.125 * width)
    assert shapes(changed) == shapes(expected)
    assert parameters(changed) == parameters(expected) < parameters(model)
    last = [[branch[-1].out_channels for branch in part] for part in (changed.model[-1].cv2, changed.model[-1].cv3)]  # pyright: ignore
    assert last == [[64] * 3, [CLASSES] * 3]  # what the head puts out means the same


def test_the_model_says_what_it_is_and_another_is_built_from_that(model: nn.Module) -> None:
    changed: Any = change_structure(model, Scale(width=0.5, depth=0.5), seed=0)
    assert shapes(DetectionModel(changed.yaml, verbose=False)) == shapes(changed)
    assert (changed.names, changed.task, changed.stride.tolist()) == (model.names, model.task, [8, 16, 32])


def test_a_shallower_model_has_fewer_repeats_and_keeps_the_first(model: nn.Module, tmp_path: Path) -> None:
    changed = change_structure(model, Scale(depth=0.5), seed=0)
    for name, block in model.named_modules():
        if isinstance(block, C2f):
            own = changed.get_submodule(name)
            assert isinstance(own, C2f)
            assert len(block.m) == (2 if name in {"model.4", "model.6"} else 1)
            assert len(own.m) == 1
            assert weights(own.m[0]) == weights(block.m[0])
            left = (2 + len(own.m)) * block.c  # the columns of the outputs that are still there
            assert torch.equal(own.cv2.conv.weight, block.cv2.conv.weight[:, :left])
    path = export_onnx(changed, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "model.onnx")
    assert len(conv_shapes(path)) == 1 + sum(1 for _ in convolutions(model)) - 2 * 2  # two each in two bottlenecks
    concats = [node for node in onnx.load(path).graph.node if node.op_type == "Concat" and "model.6" in node.name]
    assert [len(node.input) for node in concats] == [3]
    np.testing.assert_allclose(onnx_answers(path, noise(1)), answers(changed, noise(1)), rtol=1e-4, atol=1e-3)


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """All but the one in the box decoder, which the file has too."""
    return [module for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and "dfl" not in name]


@torch.no_grad()
def test_a_narrower_model_computes_what_the_wide_one_does_without_its_last_channels() -> None:
    wide = tiny_model(width=0.25)
    narrow = change_structure(wide, Scale(width=0.5), seed=0)
    silenced = deepcopy(wide)
    for name, module in silenced.named_modules():
        if isinstance(module, Conv):
            own = narrow.get_submodule(name)
            assert isinstance(own, Conv)
            halves = 2 if name.endswith(".cv1") and isinstance(silenced.get_submodule(name[:-4]), C2f) else 1
            module.register_forward_hook(silencer(own.conv.out_channels, halves))
    assert not np.allclose(answers(wide, noise(2)), answers(narrow, noise(2)), rtol=1e-2)
    np.testing.assert_allclose(answers(silenced, noise(2)), answers(narrow, noise(2)), rtol=1e-4, atol=1e-3)


def silencer(kept: int, parts: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook that zeroes all but the first channels of each of ``parts`` equal parts, so that ``kept`` are left."""

    def silence(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        mask = torch.zeros(parts, output.shape[1] // parts)
        mask[:, : kept // parts] = 1
        return output * mask.view(-1, 1, 1)

    return silence


def test_scale_one_is_the_same_model(model: nn.Module) -> None:
    same = change_structure(model, Scale(width=1.0, depth=1.0), seed=0)
    assert weights(same) == weights(model)
    assert np.array_equal(answers(same, noise(1)), answers(model, noise(1)))


def test_an_architecture_file_with_single_multiples_is_scaled_too() -> None:
    part = Scale(width=0.5, depth=0.25)
    assert scaled_yaml({"depth_multiple": 2.0, "width_multiple": 0.5}, part) == {
        "depth_multiple": 0.5,
        "width_multiple": 0.25,
    }
    assert scaled_yaml({"nc": 3}, part) == {"nc": 3, "depth_multiple": 0.25, "width_multiple": 0.5}
    two = {"scales": {"n": [0.33, 0.25, 1024], "s": [0.33, 0.5, 1024]}, "scale": "s"}
    assert scaled_yaml(two, part)["scales"] == {"s": [0.0825, 0.25, 1024]}


def test_a_model_that_is_not_what_its_file_says_is_refused(model: nn.Module) -> None:
    other: Any = deepcopy(model)
    assert isinstance(other.model[-1], Detect) and isinstance(other.model[4].m[0], Bottleneck)
    hidden = other.model[4].m[0]
    hidden.cv1, hidden.cv2 = Conv(16, 4, 3), Conv(4, 16, 3)
    with pytest.raises(ValueError, match="scale needs a model that is what its architecture file says"):
        change_structure(other, Scale(width=0.9), seed=0)


def test_a_block_without_a_rule_is_refused(model: nn.Module) -> None:
    content: Any = deepcopy(model.yaml)
    content["backbone"][3][2] = "DWConv"
    with pytest.raises(ValueError, match="knows no way to slice the weights of a DWConv"):
        change_structure(DetectionModel(content, verbose=False), Scale(width=0.5), seed=0)
