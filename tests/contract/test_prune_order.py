"""Orders: each step removes what it should, training comes in between, and the counts are those of one shot."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from search.pipeline import Inputs, shape, train
from search.stages.export import export_onnx
from search.stages.finetune import finetune
from search.stages.prune import channel_counts, prune_channels
from search.stages.prune_order import AfterStep, prune_in_training, prune_untrained, schedule, shrink_scales
from spaces.recipe import (
    ChannelPrune,
    Export,
    FeatureDistill,
    Finetune,
    GradualPrune,
    NMSparsify,
    NoDistill,
    Recipe,
    SlimmingPrune,
)
from tests.tiny import SIZE, answers, conv_shapes, noise, onnx_answers, parameters, snapshot, weights

COMMON: Any = {"ratio": 0.4, "scope": "global", "round_to": 4}
ONE_SHOT = ChannelPrune(**COMMON)
ORDERS = ("iterative", "shallow_first", "deep_first")
Seen = list[tuple[dict[str, int], int]]  # channel counts when training began, and epochs
LAYER = "model.22.cv3.0.0"


def gradual(order: Any, steps: int = 3, **rest: Any) -> GradualPrune:
    return GradualPrune(**COMMON, order=order, steps=steps, **rest)


def watched(model: nn.Module, part: Any) -> tuple[nn.Module, Seen]:
    """The model pruned in training that does nothing, and what the training was asked."""
    seen: Seen = []

    def stand_still(module: nn.Module, epochs: int, after_step: AfterStep | None) -> nn.Module:
        seen.append((channel_counts(module), epochs))
        return deepcopy(module)

    return prune_in_training(model, part, image_size=SIZE, batches=[], train=stand_still), seen


@pytest.fixture(scope="module")
def final(model: nn.Module) -> dict[str, int]:
    return channel_counts(prune_channels(model, ONE_SHOT, image_size=SIZE, batches=[]))


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_ends_at_the_counts_of_one_shot(model: nn.Module, final: dict[str, int], order: Any) -> None:
    before = snapshot(model)
    pruned, seen = watched(model, gradual(order, step_epochs=2))
    assert channel_counts(pruned) == final
    assert [epochs for _, epochs in seen] == [2, 2]
    untrained = prune_untrained(model, gradual(order, step_epochs=2), image_size=SIZE, batches=[])
    assert weights(untrained) == weights(pruned)
    assert snapshot(model) == before


def test_shallow_layers_go_first_or_last(model: nn.Module, final: dict[str, int]) -> None:
    full = channel_counts(model)
    changed = {name for name in full if final[name] < full[name]}
    ((shallow, _), *_), ((deep, _), *_) = (watched(model, gradual(f"{end}_first", 2))[1] for end in ("shallow", "deep"))
    done = {
        order: {name for name in changed if counts[name] == final[name]}
        for order, counts in (("shallow", shallow), ("deep", deep))
    }
    for counts in (shallow, deep):
        assert all(counts[name] in (full[name], final[name]) for name in full)
    assert done["shallow"] and done["deep"]
    assert "model.0.conv" in done["shallow"] and "model.0.conv" not in done["deep"]
    assert f"{LAYER}.conv" in done["deep"] and f"{LAYER}.conv" not in done["shallow"]
    middle = {order: np.mean([int(name.split(".")[1]) for name in names]) for order, names in done.items()}
    assert middle["shallow"] < 10 < middle["deep"]


def test_an_iterative_step_takes_its_share_of_every_layer(model: nn.Module, final: dict[str, int]) -> None:
    full = channel_counts(model)
    assert watched(model, gradual("iterative", 2, step_epochs=0))[1] == []
    (after_one, _), (after_two, _) = watched(model, gradual("iterative"))[1]
    for name, count in full.items():
        lost = count - final[name]
        assert (count - after_one[name], count - after_two[name]) == (lost // 3, 2 * lost // 3)


def test_a_schedule_has_no_more_steps_than_layers() -> None:
    first, last = {"a": 8, "b": 8, "c": 8}, {"a": 4, "b": 8, "c": 2}
    assert schedule(first, last, gradual("shallow_first", 5)) == [{"a": 4, "b": 8, "c": 8}, last]
    assert schedule(first, last, gradual("deep_first", 5)) == [{"a": 8, "b": 8, "c": 2}, last]
    halves = schedule(first, last, gradual("iterative", 2))
    assert halves == [{"a": 6, "b": 8, "c": 5}, last]
    assert schedule(first, first, gradual("shallow_first", 5))[-1] == first


def test_channels_are_scored_anew_after_training(model: nn.Module) -> None:
    """Training that makes the weakest channel the strongest saves it from the steps that follow."""
    part = gradual("deep_first", 2).model_copy(update={"scope": "layer"})

    def kept(pruned: nn.Module) -> list[float]:
        return pruned.get_submodule("model.0.bn").running_mean.tolist()  # pyright: ignore

    norm: Any = model.get_submodule("model.0.bn")
    plain = kept(watched(model, part)[0])
    lost = next(index for index, mean in enumerate(norm.running_mean.tolist()) if mean not in plain)

    def strengthen(module: nn.Module, epochs: int, after_step: AfterStep | None) -> nn.Module:
        trained = deepcopy(module)
        trained.get_submodule("model.0.bn").weight.data[lost] = 100.0  # pyright: ignore
        return trained

    trained = prune_in_training(model, part, image_size=SIZE, batches=[], train=strengthen)
    assert norm.running_mean[lost].item() in kept(trained)
    assert len(kept(trained)) == len(plain)


@pytest.fixture(scope="module")
def inputs(baseline: Path, data: Path) -> Inputs:
    return Inputs(baseline=baseline, data=data)


@pytest.mark.parametrize(
    ("part", "early"),
    [(gradual("shallow_first", 3, step_epochs=1), 2), (SlimmingPrune(**COMMON, sparsity_epochs=2), 2)],
    ids=["gradual", "slimming"],
)
def test_the_trained_model_has_the_shape_that_was_timed(inputs: Inputs, part: Any, early: int, tmp_path: Path) -> None:
    recipe = Recipe(
        image_size=SIZE,
        prune=part,
        sparsify=NMSparsify(),
        finetune=Finetune(epochs=1, batch=8),
        distill=FeatureDistill() if early == 2 and isinstance(part, GradualPrune) else NoDistill(),
    )
    untrained = shape(recipe, inputs)
    before, reports = snapshot(untrained), list[tuple[int, int]]()
    trained = train(untrained, recipe, inputs, lambda done, total, _: reports.append((done, total)))
    assert snapshot(untrained) == before
    assert reports == [(epoch, early + 1) for epoch in range(1, early + 2)]
    shapes = [{name: value.shape for name, value in module.state_dict().items()} for module in (untrained, trained)]
    assert shapes[0] == shapes[1]
    assert parameters(trained) < parameters(shape(recipe.model_copy(update={"prune": ONE_SHOT}), inputs)) + 1
    for name, module in trained.named_modules():
        if isinstance(module, nn.Conv2d) and "dfl" not in name and module.in_channels % 4 == 0:
            kept = (module.weight.detach().numpy() != 0).reshape(module.out_channels, -1, 4, *module.kernel_size)
            assert (kept.sum(2) == 2).all(), name
    files = [
        export_onnx(module, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / name / "model.onnx")
        for name, module in {"untrained": untrained, "trained": trained}.items()
    ]
    assert conv_shapes(files[0]) == conv_shapes(files[1])
    np.testing.assert_allclose(onnx_answers(files[1], noise(1)), answers(trained, noise(1)), rtol=1e-3, atol=1e-2)


def test_slimming_moves_every_scale_towards_zero_and_stops_there() -> None:
    """Against the definition of the proximal operator: the x with the least (x - w)² / 2 + rate · weight · |x|."""
    norm, conv = nn.BatchNorm2d(5), nn.Conv2d(5, 5, 1)
    start = torch.tensor([1.0, -1.0, 0.004, -0.003, 0.0])
    norm.weight.data.copy_(start)
    before = conv.weight.clone()
    shrink_scales(0.5)(nn.Sequential(norm, conv), 0.01)
    grid = torch.linspace(-1.5, 1.5, 300_001)
    best = [grid[((grid - value) ** 2 / 2 + 0.005 * grid.abs()).argmin()] for value in start]
    torch.testing.assert_close(norm.weight.data, torch.stack(best), atol=2e-5, rtol=0)
    assert torch.equal(conv.weight, before)


def test_training_for_sparsity_lowers_the_scales(model: nn.Module, baseline: Path, data: Path) -> None:
    settings: Any = {"data": data, "image_size": SIZE, "teacher": baseline, "seed": 0, "threads": 1}
    part = Finetune(epochs=2, batch=4)

    def scales(after_step: AfterStep | None) -> float:
        trained = finetune(model, part, NoDistill(), **settings, after_step=after_step)
        return sum(m.weight.abs().sum().item() for m in trained.modules() if isinstance(m, nn.BatchNorm2d))

    rates: list[float] = []

    def recorded(module: nn.Module, rate: float) -> None:
        rates.append(rate)
        shrink_scales(5.0)(module, rate)

    assert scales(recorded) < scales(None)
    assert len(rates) == 6  # three batches an epoch
    assert all(0 <= rate <= part.lr for rate in rates) and max(rates) > 0
