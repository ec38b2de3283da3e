"""How a model is trained: what each setting does to the learning rate, the weights and their average."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import Conv

from search.pipeline import Inputs, shape, train
from search.stages.activation import BlendedActivation, blend_activation, drop_old, set_share, swap_activation
from search.stages.export import export_onnx
from search.stages.finetune import finetune
from search.stages.losses import SmoothedBCE, label_loss
from search.stages.trainer import ModuleTrainer, shrink
from spaces.recipe import Export, Finetune, NoDistill, Recipe
from tests.tiny import SIZE, answers, noise, snapshot, weights

BATCHES = 3  # of 4 of the dozen pictures
Run = Callable[..., nn.Module]


@pytest.fixture(scope="module")
def run(model: nn.Module, data: Path, baseline: Path) -> Run:
    """Trains the tiny model for two epochs."""

    def trained(source: nn.Module = model, *, after_step: Any = None, extra: Any = None, **fields: Any):
        return finetune(
            source,
            Finetune(**{"epochs": 2, "batch": 4, **fields}),
            NoDistill(),
            data=data,
            image_size=SIZE,
            teacher=baseline,
            seed=0,
            threads=1,
            after_step=after_step,
            extra=extra,
        )

    return trained


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[ModuleTrainer]:
    """The trainers of the test, each with ``lrs``: the learning rates of the weights, by epoch, at its last step."""
    trainers: list[Any] = []
    stock = ModuleTrainer.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        stock(self, *args, **kwargs)
        trainers.append(self)
        self.lrs = []
        self.add_callback("on_train_epoch_end", lambda t: t.lrs.append(t.optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(ModuleTrainer, "__init__", init)
    return trainers


def test_the_input_stays_and_the_same_seed_gives_the_same_weights(model: nn.Module, run: Run) -> None:
    before = snapshot(model)
    settings = {"schedule": "one_cycle", "l1": 0.1, "label_smoothing": 0.1, "ema": "epoch", "freeze": 2}
    one, two = run(**settings), run(**settings)
    assert snapshot(model) == before
    assert weights(one) == weights(two) != weights(run())
    assert not one.training and {p.device.type for p in one.parameters()} == {"cpu"}


def test_the_learning_rate_follows_the_schedule(run: Run, seen: list[Any]) -> None:
    epochs, lr = 5, 1e-3
    for schedule in ("linear", "cosine", "one_cycle"):
        run(epochs=epochs, lr=lr, schedule=schedule, batch=12)
    done = np.arange(epochs)
    share = done / epochs
    line = 1 - 0.99 * share
    cosine = 0.01 + 0.99 * (1 + np.cos(np.pi * share)) / 2
    rise = 0.3 * epochs
    cycle = np.where(
        done < rise,
        0.04 + 0.96 * (1 - np.cos(np.pi * done / rise)) / 2,
        0.01 + 0.99 * (1 + np.cos(np.pi * (done - rise) / (epochs - rise))) / 2,
    )
    for trainer, expected in zip(seen, (line, cosine, cycle), strict=True):
        start = 1 if trainer.args.warmup_epochs else 0  # Ultralytics warms up within the first epoch
        np.testing.assert_allclose(trainer.lrs[start:], lr * expected[start:], rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("nadam", torch.optim.NAdam),
        ("radam", torch.optim.RAdam),
        ("rmsprop", torch.optim.RMSprop),
        ("sgd", torch.optim.SGD),
    ],
)
def test_the_optimizer_is_the_one_that_is_named(run: Run, seen: list[Any], name: str, kind: type) -> None:
    run(optimizer=name, epochs=1, batch=12, weight_decay=0.01)
    optimizer = seen[0].optimizer
    assert type(optimizer) is kind
    decays = {group["param_group"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"weight": 0.01, "bn": 0.0, "bias": 0.0}


def test_mosaic_has_its_probability_and_ends_in_time(run: Run, seen: list[Any]) -> None:
    run(mosaic=0.25, close_mosaic=0.5, epochs=4, batch=12)
    run(mosaic=0.0, close_mosaic=0.0, batch=12)
    assert [(trainer.args.mosaic, trainer.args.close_mosaic) for trainer in seen] == [(0.25, 2), (0.0, 0)]


def test_frozen_parameters_and_statistics_stay_and_all_others_move(model: nn.Module, run: Run) -> None:
    frozen = ("model.0.", "model.1.", "model.2.", "model.22.cv2.")
    trained = run(freeze=3, freeze_names="model.22.cv2.*").state_dict()
    for name, value in model.state_dict().items():
        if name.startswith(frozen) or ".dfl" in name:
            assert torch.equal(trained[name], value), name
        elif value.is_floating_point():
            assert not torch.equal(trained[name], value), name


def test_shrinking_is_the_proximal_step_of_an_l1_penalty() -> None:
    weight = nn.Parameter(torch.tensor([3.0, -3.0, 0.04, -0.05, 0.0]))
    bias, frozen = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([3.0]), requires_grad=False)
    groups = [{"params": [weight, frozen], "param_group": "weight"}, {"params": [bias], "param_group": "bias"}]
    start = weight.detach().clone()
    shrink(torch.optim.SGD(groups, lr=0.1), l1=0.5)
    # The minimum of 0.5 (x - w)^2 + 0.05 |x|, by brute force.
    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    best = [grid[(0.5 * (grid - w) ** 2 + 0.05 * grid.abs()).argmin()].item() for w in start.double()]
    np.testing.assert_allclose(weight.detach(), best, atol=1e-4)
    assert (weight[2:] == 0).all() and bias.item() == frozen.item() == 3.0


def test_l1_makes_weights_small_and_some_of_them_zero(run: Run) -> None:
    def magnitudes(model: nn.Module) -> torch.Tensor:
        return torch.cat([m.weight.abs().flatten() for m in model.modules() if isinstance(m, nn.Conv2d)])

    plain, shrunk = magnitudes(run(ema="none")), magnitudes(run(ema="none", l1=2.0))
    assert shrunk.mean() < 0.95 * plain.mean()
    assert (shrunk == 0).float().mean() > 10 * (plain == 0).float().mean() + 0.02


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_label_smoothing_against_numpy(share: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, 3))
    targets = rng.random((2, 5, 3)) * (rng.random((2, 5, 1)) < 0.5)  # most cells hold no object
    smoothed = (1 - share) * targets + share * targets.sum(-1, keepdims=True) / 3
    chance = 1 / (1 + np.exp(-logits))
    expected = -smoothed * np.log(chance) - (1 - smoothed) * np.log(1 - chance)
    found = SmoothedBCE(share)(torch.from_numpy(logits), torch.from_numpy(targets))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(smoothed.sum(-1), targets.sum(-1))  # empty cells stay empty


def test_label_smoothing_changes_the_class_loss_alone(model: nn.Module, batches: list[Any]) -> None:
    student: Any = deepcopy(model).train()
    student.args = get_cfg()
    preds = student(batches[0]["img"])
    plain, smooth = (label_loss(student, share)(preds, batches[0])[1] for share in (0.0, 0.3))
    assert smooth["cls_loss"] != plain["cls_loss"]
    assert smooth["box_loss"] == plain["box_loss"] and smooth["dfl_loss"] == plain["dfl_loss"]


def test_label_smoothing_reaches_the_training(run: Run, seen: list[Any]) -> None:
    assert weights(run(label_smoothing=0.3)) != weights(run())
    assert isinstance(seen[0].model.criterion.bce, SmoothedBCE)


@pytest.mark.parametrize("name", ["epoch", "none", "ultralytics"])
def test_the_result_is_the_average_of_the_weights_of_every_step(model: nn.Module, run: Run, name: str) -> None:
    steps: list[torch.Tensor] = []

    def look(trained: nn.Module, rate: float) -> None:
        steps.append(weight_of(trained).detach().clone().double())

    result = weight_of(run(ema=name, epochs=3, after_step=look)).double()
    assert len(steps) == 3 * BATCHES
    if name == "none":
        expected = steps[-1]
    elif name == "epoch":
        expected = torch.stack(steps[:BATCHES]).mean(0)
        for step in steps[BATCHES:]:
            expected = expected * (1 - 1 / BATCHES) + step / BATCHES
    else:
        expected = weight_of(model).double()
        for update, step in enumerate(steps, start=1):
            decay = 0.9999 * (1 - np.exp(-update / 2000))
            expected = expected * decay + step * (1 - decay)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-7)
    assert (result - steps[-1]).abs().max() > 0 or name == "none"


def test_what_is_done_after_a_step_reaches_the_result(run: Run) -> None:
    def mask(trained: nn.Module, rate: float) -> None:
        weight_of(trained).data[0] = 0

    result = run(after_step=mask, ema="none", epochs=1)
    assert not weight_of(result)[0].any() and weight_of(result)[1:].all()


def test_a_blend_starts_as_the_old_model_and_ends_as_the_new_one(model: nn.Module) -> None:
    new = swap_activation(model, "relu")
    before = snapshot(new)
    blended = blend_activation(new, model)
    assert snapshot(new) == before
    images = noise(1)
    assert np.array_equal(answers(blended, images), answers(model, images))
    set_share(blended, 1.0)
    np.testing.assert_allclose(answers(blended, images), answers(new, images), rtol=1e-5, atol=1e-5)
    set_share(blended, 0.25)
    act = next(module for module in blended.modules() if isinstance(module, BlendedActivation))
    x = np.linspace(-4, 4, 9, dtype=np.float32)
    expected = 0.75 * x / (1 + np.exp(-x)) + 0.25 * np.maximum(x, 0)
    np.testing.assert_allclose(act(torch.from_numpy(x.copy())).numpy(), expected, rtol=1e-5, atol=1e-6)
    drop_old(blended)
    assert np.array_equal(answers(blended, images), answers(new, images))


def test_a_gradual_swap_ends_in_a_file_with_the_new_operator_only(
    baseline: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    stock = ModuleTrainer._after_step

    def after(self: ModuleTrainer) -> None:
        stock(self)
        shares.append(float(next(m for m in self.model.modules() if isinstance(m, BlendedActivation)).share))

    monkeypatch.setattr(ModuleTrainer, "_after_step", after)
    recipe = Recipe(image_size=SIZE, activation="relu", finetune=Finetune(epochs=3, batch=4, swap_epochs=2))
    inputs = Inputs(baseline=baseline, data=data)
    trained = train(shape(recipe, inputs), recipe, inputs)
    np.testing.assert_allclose(shares, [min((step + 1) / (2 * BATCHES), 1) for step in range(3 * BATCHES)], rtol=1e-6)
    path = export_onnx(trained, Export(fast_dfl=False), image_size=SIZE, path=tmp_path / "model.onnx")
    operators = [node.op_type for node in onnx.load(path).graph.node]
    active = [m for m in trained.modules() if isinstance(m, Conv) and not isinstance(m.act, nn.Identity)]
    assert operators.count("Relu") == len(active)
    assert operators.count("Sigmoid") == 1  # of the scores
    assert {type(block.act) for block in active} == {nn.ReLU}


def test_a_swap_that_would_not_end_in_time_is_refused() -> None:
    with pytest.raises(ValueError, match="swap_epochs 2 needs more than 2 epochs"):
        Finetune(epochs=2, swap_epochs=2)


def weight_of(model: Any) -> torch.Tensor:
    return model.model[4].cv1.conv.weight
