"""Which layers are pruned: by place and by name; and batch norms measured anew afterwards."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search.stages.export import export_onnx
from search.stages.prune import prune_channels
from spaces.recipe import ChannelPrune, Export, LayerwisePrune
from tests.tiny import OUTPUT, SIZE, branches, conv_shapes, noise, onnx_answers, snapshot

HALF: Any = {"ratio": 0.5, "round_to": 1}
HEAD, BACKBONE = 22, 10  # index of the head, and how many modules YOLOv8's backbone has


def smaller(model: nn.Module, **choice: Any) -> set[str]:
    """The convolutions that put out fewer channels when half of those chosen go."""
    pruned = prune_channels(model, ChannelPrune(**HALF, **choice), image_size=SIZE, batches=[])
    old, new = (
        {name: module.out_channels for name, module in m.named_modules() if isinstance(module, nn.Conv2d)}
        for m in (model, pruned)
    )
    assert old.keys() == new.keys()
    return {name for name in old if new[name] < old[name]}


def index(name: str) -> int:
    return int(name.split(".")[1])


@pytest.fixture(scope="module")
def everything(model: nn.Module) -> set[str]:
    return smaller(model)


def test_each_place_is_pruned_alone_and_together_they_are_all(model: nn.Module, everything: set[str]) -> None:
    places = {where: smaller(model, where=where) for where in ("backbone", "neck", "head")}
    assert all(places.values())
    assert {index(name) for name in places["backbone"]} <= set(range(BACKBONE))
    assert {index(name) for name in places["neck"]} <= set(range(BACKBONE, HEAD))
    assert {index(name) for name in places["head"]} == {HEAD}
    assert set.union(*places.values()) == everything


def counts(model: nn.Module) -> dict[str, int]:
    return {name: module.out_channels for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def layerwise(model: nn.Module, **fields: Any) -> nn.Module:
    return prune_channels(model, LayerwisePrune(**{**HALF, **fields}), image_size=SIZE, batches=[])


def test_factors_of_one_are_one_ratio_for_all(model: nn.Module) -> None:
    same = prune_channels(model, ChannelPrune(**HALF), image_size=SIZE, batches=[])
    assert counts(layerwise(model)) == counts(same)


def test_each_section_loses_the_ratio_times_its_factor(model: nn.Module, everything: set[str]) -> None:
    old, new = counts(model), counts(layerwise(model, backbone=0.5, neck=0.0, head=1.5))
    for name in everything:
        where = 0.75 if index(name) == HEAD else 0.0 if index(name) >= BACKBONE else 0.25
        assert new[name] == pytest.approx(old[name] * (1 - where), abs=1), name  # a whole number of channels
    assert {name for name in old if new[name] < old[name]} <= everything


def test_a_layer_by_its_name_has_a_ratio_of_its_own(model: nn.Module) -> None:
    old, new = counts(model), counts(layerwise(model, layers=r"^model\.1\.=0.25, ^model\.[13]\.=0"))
    assert new["model.1.conv"] == old["model.1.conv"] * 3 // 4  # the first pair that matches
    assert new["model.3.conv"] == old["model.3.conv"]
    assert new["model.5.conv"] == old["model.5.conv"] // 2


def test_no_layer_loses_more_than_the_bound(model: nn.Module) -> None:
    old, new = counts(model), counts(layerwise(model, backbone=4.0, max_ratio=0.75))
    assert new["model.5.conv"] == old["model.5.conv"] // 4
    assert all(new[name] >= old[name] // 4 for name in old)


def test_a_layerwise_pruned_model_exports_with_these_shapes(model: nn.Module, tmp_path: Path) -> None:
    before = snapshot(model)
    pruned = layerwise(model, backbone=0.4, head=1.4, round_to=4)
    assert snapshot(model) == before
    path = export_onnx(pruned, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "model.onnx")
    assert sum(shape[0] for shape in conv_shapes(path).values()) == sum(counts(pruned).values())
    assert onnx_answers(path, noise(1)).shape == OUTPUT
    assert snapshot(layerwise(model, backbone=0.4, head=1.4, round_to=4)) == snapshot(pruned)


def test_the_outputs_are_kept_even_if_they_are_asked_for(model: nn.Module, everything: set[str]) -> None:
    outputs = {f"model.22.{branch}.{level}.2" for branch in ("cv2", "cv3") for level in range(3)}
    assert not everything & {*outputs, "model.22.dfl.conv"}
    assert not smaller(model, include=r"^model\.22\.") & outputs
    with pytest.raises(ValueError, match="leave no layer to prune"):
        smaller(model, include=r"^model\.22\.cv[23]\.0\.2$")
    assert all(layer.out_channels > 4 for layers in branches(model) for layer in layers)


def test_include_and_exclude_search_the_names_that_a_user_sees(model: nn.Module, everything: set[str]) -> None:
    assert smaller(model, include=r"^model\.22\.cv3\.1\.0\.") == {"model.22.cv3.1.0.conv"}
    assert smaller(model, include=r"^model\.2\.cv1\.") <= {"model.2.cv1.conv", "model.2.m.0.cv2.conv"}
    assert smaller(model, exclude=r"^model\.22\.") == {name for name in everything if index(name) < HEAD}
    both = smaller(model, include=r"^model\.22\.", exclude=r"cv2\.")
    assert both == {name for name in everything if name.startswith("model.22.cv3.")}


def test_coupled_layers_are_pruned_only_if_all_of_them_are_chosen(model: nn.Module, everything: set[str]) -> None:
    # The bottleneck of a C2f adds its output to the second half of the first convolution's.
    assert "model.2.m.0.cv2.conv" in everything
    assert "model.2.m.0.cv2.conv" not in smaller(model, exclude=r"^model\.2\.cv1\.")
    assert "model.2.cv1.conv" in smaller(model, exclude=r"^model\.2\.m\.0\.cv2\.")  # its first half is free


def test_a_choice_of_nothing_is_refused_in_words(model: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=r"prune: where 'all', include 'conv99' and exclude '' leave no layer to prune"
    ):
        smaller(model, include="conv99")


def test_the_file_has_the_chosen_shapes(model: nn.Module, tmp_path: Path) -> None:
    before = snapshot(model)
    pruned = prune_channels(model, ChannelPrune(**HALF, where="head"), image_size=SIZE, batches=[])
    assert snapshot(model) == before
    path = export_onnx(pruned, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "model.onnx")
    full = export_onnx(model, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "full.onnx")
    old, new = conv_shapes(full), conv_shapes(path)
    assert {index(name) for name in old if old[name] != new[name]} == {HEAD}
    assert new["model.22.cv3.0.0.conv.weight"][0] == old["model.22.cv3.0.0.conv.weight"][0] // 2
    assert onnx_answers(path, noise(1)).shape == OUTPUT


def test_batch_norms_are_measured_anew_on_the_pruned_model(model: nn.Module, batches: list[dict[str, Any]]) -> None:
    before = snapshot(model)
    plain = prune_channels(model, ChannelPrune(**HALF), image_size=SIZE, batches=batches)
    again = prune_channels(model, ChannelPrune(**HALF, reestimate_bn=True), image_size=SIZE, batches=batches)
    assert snapshot(model) == before
    means, variances = measured(plain, [batch["img"] for batch in batches])
    for name, module in again.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            np.testing.assert_allclose(module.running_mean.numpy(), means[name], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(module.running_var.numpy(), variances[name], rtol=1e-3, atol=1e-4)
            assert module.momentum == plain.get_submodule(name).momentum and not module.training
    old, new = dict(plain.named_parameters()), dict(again.named_parameters())
    assert all(torch.equal(old[name], value) and value.grad is None for name, value in new.items())


def measured(model: nn.Module, images: list[Tensor]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Means over the batches of each norm's input's mean and variance, in numpy; the input has batch statistics."""
    copy = deepcopy(model).train()
    seen: dict[str, list[np.ndarray]] = {}

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: seen.setdefault(name, []).append(inputs[0].numpy().astype(np.float64))

    for name, module in copy.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(listen(name))
    with torch.no_grad():
        for batch in images:
            copy(batch)
    means = {name: np.mean([x.mean((0, 2, 3)) for x in inputs], axis=0) for name, inputs in seen.items()}
    variances = {name: np.mean([x.var((0, 2, 3), ddof=1) for x in inputs], axis=0) for name, inputs in seen.items()}
    return means, variances
