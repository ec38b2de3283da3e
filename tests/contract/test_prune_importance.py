"""Importance scores against the papers' formulas, written out again, and which channels stay because of them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import Conv

from search.stages import prune_attention
from search.stages.labelled import batch_loss
from search.stages.prune import opened, prune_channels, scorer
from search.stages.prune_attention import attention_importance
from search.stages.prune_importance import IMPORTANCES, GeometricMedianImportance, LotImportance
from search.stages.structure import change_structure
from search.tasks.detect import DETECT, singles
from spaces.recipe import ChannelPrune, Ghost
from tests.tiny import SIZE, snapshot, weights

Batches = list[dict[str, Any]]
LAYER = "model.22.cv3.0.0"  # of the head: 32 channels, which one other block reads
FOLLOWING = "model.22.cv3.0.1"


class Net(nn.Module):
    """Two convolutions and a loss that can be differentiated image by image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
        self.norm.weight.data.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        loss = (self(batch["img"]) ** 2).sum((1, 2, 3)).mean()
        return loss, loss


def net_batches() -> Batches:
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [3.0, 1, 0.2, 2, 0.5, 0.1]
    ).view(6, 1, 1, 1)
    empty = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    return [{"img": part, **empty} for part in images.split(3)]


def group_of(net: Net) -> tp.Group:
    graph = tp.DependencyGraph().build_dependency(net, torch.zeros(1, 3, 8, 8))
    return graph.get_pruning_group(net.first, tp.prune_conv_out_channels, list(range(6)))


def fisher(net: Net, images: Tensor) -> np.ndarray:
    """w² · mean over images of g², of all weights of a channel, with every image's gradient by itself."""
    values = {name: value.detach() for name, value in net.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return (functional_call(net, parameters, (image[None],)) ** 2).sum()

    gradients = vmap(grad(loss), in_dims=(None, 0))(values, images)
    each = {name: (values[name] ** 2 * (value**2).mean(0)).numpy() for name, value in gradients.items()}
    parts = [each["first.weight"].sum((1, 2, 3)), each["norm.weight"], each["second.weight"].sum((0, 2, 3))]
    score = np.mean(parts, axis=0)
    return score / score.mean()


def test_hessian_counts_the_gradients_of_every_image_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.stages.prune_importance.kind_of_model", lambda net: DETECT)  # it has no head
    net, batches = Net().eval(), net_batches()
    found = IMPORTANCES["hessian"](net, batches)(group_of(net))
    assert found is not None
    images = torch.cat([batch["img"] for batch in batches])
    np.testing.assert_allclose(found.numpy(), fisher(net, images), rtol=1e-4)
    # Torch-Pruning's own sum would be the last image's alone, which says something else.
    assert not np.allclose(found.numpy(), fisher(net, images[-1:]), rtol=0.05)


def test_hessian_keeps_the_channels_that_it_scores_highest(model: nn.Module, batches: Batches) -> None:
    copy: Any = deepcopy(model).requires_grad_(True)
    copy.args = get_cfg()
    first, second = blocks(copy)[LAYER], blocks(copy)[FOLLOWING]
    owned = [first.conv.weight, first.bn.weight, second.conv.weight]
    sums = [torch.zeros_like(value) for value in owned]
    for batch in batches:
        for index in range(len(batch["img"])):
            own = batch["batch_idx"] == index
            single = {"img": batch["img"][index : index + 1], "batch_idx": torch.zeros(int(own.sum()))}
            copy.zero_grad()
            copy.loss({**single, "cls": batch["cls"][own], "bboxes": batch["bboxes"][own]})[0].sum().backward()
            for value, total in zip(owned, sums, strict=True):
                assert value.grad is not None
                total += value.grad**2
    one, scale, two = ((value**2 * total).detach().numpy() for value, total in zip(owned, sums, strict=True))
    score = one.sum((1, 2, 3)) + scale + two.sum((0, 2, 3))
    assert kept(model, "hessian", batches) == best(score)


def test_single_images_have_the_labels_of_the_batch(batches: Batches) -> None:
    for batch in batches:
        images = singles(batch)
        assert torch.equal(torch.cat([image["img"] for image in images]), batch["img"])
        boxes = [batch["bboxes"][batch["batch_idx"] == index] for index in range(len(images))]
        assert all(torch.equal(image["bboxes"], own) for image, own in zip(images, boxes, strict=True))
        assert sum(len(image["cls"]) for image in images) == len(batch["cls"])
        assert all(image["batch_idx"].eq(0).all() for image in images)


def test_fpgm_is_a_filters_distance_to_all_others() -> None:
    net = Net()
    filters = net.first.weight.detach().numpy().reshape(6, -1)
    distances = np.array([sum(np.sqrt(((a - b) ** 2).sum()) for b in filters) for a in filters])
    found = GeometricMedianImportance()(group_of(net))
    assert found is not None
    np.testing.assert_allclose(found.numpy(), distances / distances.mean(), rtol=1e-5)


def test_fpgm_takes_the_filter_in_the_middle_and_no_negative_for_a_twin() -> None:
    net = Net()
    net.first.weight.data[2] = net.first.weight.data[[0, 1, 3, 4, 5]].mean(0)
    found = GeometricMedianImportance()(group_of(net))
    assert found is not None and found.argmin() == 2
    net.first.weight.data[:] = net.first.weight.data[:1]
    net.first.weight.data[3] *= -1
    found = GeometricMedianImportance()(group_of(net))
    assert found is not None and found.argmax() == 3 and found[3] > 4 * found[0]


def test_fpgm_keeps_the_channels_that_it_scores_highest(model: nn.Module) -> None:
    filters = blocks(model)[LAYER].conv.weight.detach().numpy().astype(float)
    filters = filters.reshape(len(filters), -1)
    score = np.linalg.norm(filters[:, None] - filters[None], axis=-1).sum(1)
    assert kept(model, "fpgm", []) == best(score)


def test_attention_gates_begin_as_one_and_leave_nothing_behind(
    model: nn.Module, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_model = opened(model)
    before = state(open_model)
    monkeypatch.setattr(prune_attention, "STEPS", 0)
    gates = attention_importance(open_model, batches).gates
    assert gates.keys() == {block.conv for block in blocks(open_model).values()}
    assert all(torch.equal(gate, torch.ones(layer.out_channels)) for layer, gate in gates.items())  # pyright: ignore
    assert state(open_model) == before


def test_attention_trains_the_gates_alone_and_lowers_the_loss(
    model: nn.Module, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []

    def recorded(module: nn.Module, batch: dict[str, Any]) -> Tensor:
        loss = batch_loss(module, batch)
        losses.append(loss.item())
        return loss

    open_model = opened(model)
    before = state(open_model)
    monkeypatch.setattr(prune_attention, "batch_loss", recorded)
    attention_importance(open_model, batches[:1])
    assert len(losses) == prune_attention.STEPS
    assert losses[0] == pytest.approx(batch_loss(open_model, batches[0]).item(), rel=1e-5)
    assert losses[-1] < losses[0]
    assert state(open_model) == before


def test_attention_shuts_a_channel_that_does_harm_and_prunes_it(
    model: nn.Module, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmed, channel = deepcopy(model), 7
    blocks(harmed)[LAYER].bn.bias.data[channel] = 4.0  # always on
    blocks(harmed)[FOLLOWING].conv.weight.data[:, channel] = 1.0
    last: Any = harmed.get_submodule("model.22.cv3.0.2")
    last.weight.data.abs_()  # so that it claims every class everywhere
    # With gates at every layer the earlier ones would share the work.
    monkeypatch.setattr(prune_attention, "_blocks", lambda module: [blocks(module)[LAYER]])
    (gate,) = attention_importance(opened(harmed), batches).gates.values()
    assert gate.argmin() == channel and gate[channel] < 0.5
    assert channel not in kept(harmed, "attention", batches)
    assert kept(harmed, "attention", batches) == best(gate.numpy())


def test_the_lot_does_not_look_at_the_weights(model: nn.Module) -> None:
    other = deepcopy(model)
    for value in other.parameters():  # running means, by which channels are recognised, are none
        value.data.normal_(generator=torch.Generator().manual_seed(1))
    assert kept(model, "random", []) == kept(other, "random", [])
    assert kept(model, "random", []) != kept(model, "l2", [])


def test_the_lot_favours_no_channel() -> None:
    lot, group = LotImportance(), group_of(Net())
    wins = np.bincount([int(lot(group).argmax()) for _ in range(600)], minlength=6)
    assert len(wins) == 6 and wins.min() > 70 and wins.max() < 130  # 100 each; four standard deviations are 37


@pytest.mark.parametrize("method", ["hessian", "fpgm", "attention", "random"])
def test_the_input_is_untouched_and_the_result_the_same_each_time(
    model: nn.Module, batches: Batches, method: Any
) -> None:
    before, held = snapshot(model), deepcopy(batches)
    part = ChannelPrune(method=method, ratio=0.5, scope="global", round_to=4)
    one = prune_channels(model, part, image_size=SIZE, batches=batches)
    torch.manual_seed(99)
    two = prune_channels(model, part, image_size=SIZE, batches=batches)
    assert weights(one) == weights(two)
    assert snapshot(model) == before
    assert all(torch.equal(batch["img"], old["img"]) for batch, old in zip(batches, held, strict=True))


@pytest.mark.parametrize("method", ["hessian", "attention"])
def test_methods_that_look_at_the_loss_need_batches(model: nn.Module, method: Any) -> None:
    with pytest.raises(AssertionError, match="labelled batches"):
        prune_channels(model, ChannelPrune(method=method, ratio=0.5), image_size=SIZE, batches=[])


@pytest.mark.parametrize("method", ["taylor", "hessian", "l2"])
def test_a_ghost_modules_channels_are_scored_one_by_one(model: nn.Module, batches: Batches, method: Any) -> None:
    """Both halves of one stand and fall together, so a group's scores are as many as one half has channels."""
    name = "model.22.cv2.0.0.cv1.conv"
    haunted = change_structure(model, Ghost(where="head"), seed=0)
    copy = opened(haunted)
    score = scorer(copy, ChannelPrune(method=method, ratio=0.5), batches)
    graph = tp.DependencyGraph().build_dependency(copy, torch.zeros(1, 3, SIZE, SIZE))
    first: Any = copy.get_submodule(name)
    found = score(graph.get_pruning_group(first, tp.prune_conv_out_channels, list(range(first.out_channels))))
    assert found is not None and len(found) == first.out_channels and (found > 0).all()
    part = ChannelPrune(method=method, ratio=0.5, round_to=1, where="head")
    after: Any = prune_channels(haunted, part, image_size=SIZE, batches=batches).get_submodule(name)
    assert after.out_channels == first.out_channels // 2


def blocks(model: nn.Module) -> dict[str, Conv]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Conv)}


def state(model: nn.Module) -> dict[str, Any]:
    """Weights, what is frozen, modes and hooks; not what the head remembers of its last input."""
    known = {name: module.training for name, module in model.named_modules()}
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    frozen = [name for name, value in model.named_parameters() if not value.requires_grad or value.grad is not None]
    return {**weights(model), **known, "hooks": hooks, "frozen": frozen}


def kept(model: nn.Module, method: Any, batches: Batches) -> list[int]:
    """The channels of ``LAYER`` that are left when four in ten go, recognised by their running means."""
    part = ChannelPrune(method=method, ratio=0.4, round_to=1, include=LAYER.replace(".", r"\."))
    small = prune_channels(model, part, image_size=SIZE, batches=batches)
    before, after = (blocks(m)[LAYER].bn.running_mean for m in (model, small))
    assert before is not None and after is not None
    return [before.tolist().index(mean) for mean in after.tolist()]


def best(score: np.ndarray) -> list[int]:
    return sorted(np.argsort(score)[::-1][: int(len(score) * 0.6)].tolist())
