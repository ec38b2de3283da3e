"""Sensitivity: the scan says what pruning does, and the budget goes where it hurts least."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning as tp
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from search.cache import StageCache
from search.stages import prune_sensitivity
from search.stages.labelled import batch_loss
from search.stages.prune import opened, prune_channels, scorer
from search.stages.prune_layers import output_layers
from search.stages.prune_sensitivity import LEVELS, scan, silenced, spend
from search.stages.structure import change_structure
from spaces.recipe import CbamChannel, ChannelPrune
from tests.tiny import SIZE, snapshot, weights

Batches = list[dict[str, Any]]
IMPORTANT = "model.22.cv3.1.1.conv"
PART = ChannelPrune(ratio=0.4, scope="sensitivity", round_to=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where scans of these tests are kept."""
    return tmp_path_factory.mktemp("scans")


def pruned_at(model: nn.Module, batches: Batches, folder: Path, part: ChannelPrune = PART) -> nn.Module:
    return prune_channels(model, part, image_size=SIZE, batches=batches[:1], cache=StageCache(folder))


def out_channels(model: nn.Module) -> dict[str, int]:
    return {name: module.out_channels for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def root_channels(model: nn.Module) -> dict[str, int]:
    """The channels of each group that can be pruned, by its first layer."""
    copy = opened(model)
    graph = tp.DependencyGraph().build_dependency(copy, torch.zeros(1, 3, SIZE, SIZE))
    ignored = [inner for layer in output_layers(copy) for inner in layer.modules()]
    names = {module: name for name, module in copy.named_modules()}
    groups = [group[0].dep.target.module for group in graph.get_all_groups(ignored)]
    return {names[root]: root.out_channels for root in groups}


def test_silencing_a_group_is_the_same_as_pruning_it(model: nn.Module, batches: Batches) -> None:
    copy = opened(model)
    copy.requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(copy, torch.zeros(1, 3, SIZE, SIZE))
    ignored = [inner for layer in output_layers(copy) for inner in layer.modules()]
    groups = list(graph.get_all_groups(ignored))
    plain, changed = loss(copy, batches), 0
    for index in range(0, len(groups), 8):  # one in eight of them: coupled ones, concatenated ones, the head's
        channels = list(range(0, groups[index][0].dep.target.module.out_channels, 2))
        with silenced(graph, groups[index], channels):
            found = loss(copy, batches)
        small = deepcopy(copy)
        own = tp.DependencyGraph().build_dependency(small, torch.zeros(1, 3, SIZE, SIZE))
        same = list(own.get_all_groups([inner for layer in output_layers(small) for inner in layer.modules()]))[index]
        same.prune(channels)
        assert found == pytest.approx(loss(small, batches), rel=1e-4)
        changed += found != plain
    assert changed > 3  # the boxes of a level that no object belongs to do not matter
    assert loss(copy, batches) == plain


def test_the_scan_prunes_the_least_important_of_each_group_alone(model: nn.Module, batches: Batches) -> None:
    copy = opened(model)
    graph = tp.DependencyGraph().build_dependency(copy, torch.zeros(1, 3, SIZE, SIZE))
    before = weights(copy)
    curves = scan(copy, graph, scorer(copy, PART, batches), batches[:1])
    assert weights(copy) == before
    assert curves.keys() == root_channels(model).keys()
    name = IMPORTANT.replace(".", r"\.")
    small = prune_channels(model, ChannelPrune(ratio=0.5, round_to=1, include=f"^{name}$"), image_size=SIZE, batches=[])
    rise = loss(small, batches[:1]) - loss(copy, batches[:1])
    assert curves[IMPORTANT][LEVELS.index(0.5)] == pytest.approx(rise, rel=1e-3, abs=1e-3)


curves_and_channels = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.lists(
            st.lists(st.floats(-1, 10), min_size=len(LEVELS), max_size=len(LEVELS)), min_size=count, max_size=count
        ),
        st.lists(st.integers(1, 512), min_size=count, max_size=count),
        st.floats(0.05, 0.9),
    )
)


@given(curves_and_channels)
def test_the_budget_is_spent_exactly_and_no_layer_loses_more_than_the_maximum(
    case: tuple[list[list[float]], list[int], float],
) -> None:
    curves, channels, ratio = case
    rises = {str(index): curve for index, curve in enumerate(curves)}
    counts = {str(index): count for index, count in enumerate(channels)}
    shares = spend(rises, counts, ratio=ratio, max_ratio=0.9)
    assert all(-1e-9 <= share <= 0.9 + 1e-9 for share in shares.values())
    spent = sum(counts[name] * share for name, share in shares.items())
    assert spent == pytest.approx(ratio * sum(counts.values()), rel=1e-6)


def test_no_other_split_of_the_budget_has_a_lower_highest_rise() -> None:
    """Against brute force, over a grid of shares of three layers."""
    levels = (0.0, *LEVELS)
    curves = {"a": [0.1, 0.5, 2.0, 9.0], "b": [1.0, 2.0, 3.0, 4.0], "c": [0.0, 0.0, 0.3, 8.0]}
    channels = {"a": 10, "b": 20, "c": 10}
    shares = spend(curves, channels, ratio=0.4, max_ratio=0.9)

    def worst(own: dict[str, float]) -> float:
        return max(float(np.interp(own[name], levels, [0.0, *curve])) for name, curve in curves.items())

    grid = np.linspace(0, 0.9, 91)
    others = [
        worst({"a": a, "b": b, "c": c})
        for a in grid
        for b in grid
        if 0 <= (c := (0.4 * 40 - 10 * a - 20 * b) / 10) <= 0.9
    ]
    assert worst(shares) <= min(others) + 1e-9
    assert shares["c"] > shares["a"] > shares["b"]


def test_a_layer_that_matters_more_keeps_more(model: nn.Module, batches: Batches, folder: Path) -> None:
    # All that keeps the second level from seeing every class everywhere goes through this layer.
    weighty, level = deepcopy(model), "model.22.cv3.1"
    norm, last = (weighty.get_submodule(f"{level}.{place}") for place in ("1.bn", "2"))
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(last, nn.Conv2d) and last.bias is not None
    norm.bias.data.fill_(3.0)
    last.weight.data.fill_(-0.1)
    last.bias.data.fill_(5.0)
    before = snapshot(weighty)
    idle = deepcopy(model)  # nothing reads what the layer puts out
    reader = idle.get_submodule(f"{level}.2")
    assert isinstance(reader, nn.Conv2d)
    reader.weight.data.zero_()
    plain = out_channels(pruned_at(idle, batches, folder))
    found = out_channels(pruned_at(weighty, batches, folder))
    assert snapshot(weighty) == before
    assert plain[IMPORTANT] < 0.6 * 32 < 0.9 * 32 < found[IMPORTANT]


def test_the_share_of_all_channels_is_what_the_recipe_asks(model: nn.Module, batches: Batches, folder: Path) -> None:
    old, new = root_channels(model), root_channels(pruned_at(model, batches, folder))
    assert old.keys() == new.keys()
    removed = sum(old.values()) - sum(new.values())
    # A layer's share is rounded to whole channels, always up.
    assert 0.4 * sum(old.values()) <= removed <= 0.4 * sum(old.values()) + len(old)
    assert all(new[name] >= 0.1 * old[name] for name in old)
    assert len({round(new[name] / old[name], 1) for name in old}) > 3


def test_only_the_chosen_layers_spend_the_budget(model: nn.Module, batches: Batches, folder: Path) -> None:
    part = PART.model_copy(update={"where": "head"})
    old, new = root_channels(model), root_channels(pruned_at(model, batches, folder, part))
    smaller = {name for name in old if new[name] < old[name]}
    head = {name for name in old if name.startswith("model.22.")}
    assert smaller and smaller <= head
    removed = sum(old[name] - new[name] for name in head)
    assert 0.4 * sum(old[name] for name in head) <= removed <= 0.4 * sum(old[name] for name in head) + len(head)


def test_a_scan_is_done_once_for_a_model_and_its_data(
    model: nn.Module, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[int] = []
    names = root_channels(model)

    def counted(*_: object) -> dict[str, list[float]]:
        scans.append(1)
        return {name: [0.1 * position, 1.0, 2.0, 3.0] for position, name in enumerate(names)}

    monkeypatch.setattr(prune_sensitivity, "scan", counted)
    first = pruned_at(model, batches, tmp_path)
    assert weights(pruned_at(model, batches, tmp_path)) == weights(first)
    pruned_at(model, batches, tmp_path, PART.model_copy(update={"ratio": 0.6, "where": "neck"}))
    assert len(scans) == 1
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text()).keys() == names.keys()

    changed = deepcopy(model)
    next(changed.parameters()).data[0, 0, 0, 0] += 1
    activated = deepcopy(model)
    activated.get_submodule("model.0").act = nn.ReLU()
    pruned_at(changed, batches, tmp_path)
    pruned_at(activated, batches, tmp_path)
    pruned_at(model, batches[1:], tmp_path)
    pruned_at(model, batches, tmp_path, PART.model_copy(update={"method": "l1"}))
    assert len(scans) == len(list(tmp_path.iterdir())) == 5


def test_sensitivity_needs_batches(model: nn.Module) -> None:
    with pytest.raises(AssertionError, match="labelled batches"):
        prune_channels(model, PART, image_size=SIZE, batches=[])


@torch.no_grad()
def loss(model: nn.Module, batches: Batches) -> float:
    copy = deepcopy(model).eval() if not any(m._forward_pre_hooks for m in model.modules()) else model
    return sum(batch_loss(copy, batch).item() for batch in batches) / len(batches)


def test_a_group_that_the_method_cannot_score_is_left_as_it_is(
    model: nn.Module, batches: Batches, tmp_path: Path
) -> None:
    """The hidden layers of channel attention have no batch norm, so its scale says nothing about them."""
    attentive = change_structure(model, CbamChannel(where="backbone"), seed=0)
    part = PART.model_copy(update={"method": "bn_scale"})
    before, after = (out_channels(m) for m in (attentive, pruned_at(attentive, batches, tmp_path, part)))
    hidden = {name for name in out_channels(opened(attentive)) if name.endswith("squeeze")}
    assert hidden and all(after[name] == before[name] for name in hidden)
    rest = before.keys() - hidden
    assert sum(after[name] for name in rest) < 0.8 * sum(before[name] for name in rest)
