"""Training: the shape is kept, the weights are not, a seed decides all, and nothing is left lying about."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT, SETTINGS

from search.stages.c2f import SplitC2f
from search.stages.distill import TaughtLoss
from search.stages.finetune import finetune
from search.stages.prune import prune_channels
from spaces.recipe import ChannelPrune, FeatureDistill, Finetune, NoDistill
from tests.tiny import BINS, OUTPUT, SIZE, answers, files_below, head, noise, parameters, sha256, snapshot, weights

PICTURES = 12  # in the training split
Train = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders in which the training must leave nothing."""

    working: Path
    temporary: Path
    runs: Path  # of Ultralytics

    def left(self) -> list[Path]:
        """What was left all the same, but for the cache that PyTorch makes once in a process, and this user's locks."""
        found = [path for folder in (self.working, self.temporary, self.runs) for path in folder.iterdir()]
        return [path for path in found if not path.name.startswith(("torchinductor_", "yolo-front-"))]


@pytest.fixture(scope="module")
def student(model: nn.Module) -> nn.Module:
    """A pruned model, with blocks of unequal parts."""
    part = ChannelPrune(ratio=0.6, round_to=4, scope="global")
    small = prune_channels(model, part, image_size=SIZE, batches=[])
    assert [module for module in small.modules() if isinstance(module, SplitC2f)]
    return small


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    found = Places(working=tmp_path / "working", temporary=tmp_path / "temporary", runs=tmp_path / "runs")
    for folder in (found.working, found.temporary, found.runs):
        folder.mkdir()
    monkeypatch.setattr("ultralytics.cfg.TESTS_RUNNING", False)  # it has a folder of its own for tests
    monkeypatch.setitem(SETTINGS, "runs_dir", str(found.runs))
    monkeypatch.chdir(found.working)
    monkeypatch.setattr(tempfile, "tempdir", str(found.temporary))
    return found


@pytest.fixture(scope="module")
def train(student: nn.Module, baseline: Path, data: Path) -> Train:
    """Trains the student for an epoch, or as the arguments say otherwise."""

    def run(model: nn.Module = student, *, distill: Any = NoDistill(), seed: int = 0, **other: Any) -> nn.Module:  # noqa: B008
        settings = {"epochs": 1, "batch": 4, **{name: other.pop(name) for name in ("epochs", "lr") if name in other}}
        return finetune(
            model,
            Finetune(**settings),
            distill,
            data=data,
            image_size=SIZE,
            teacher=baseline,
            seed=seed,
            threads=1,
            **other,
        )

    return run


@pytest.fixture(scope="module")
def trained(train: Train) -> nn.Module:
    return train()


@pytest.fixture(scope="module")
def distilled(train: Train) -> nn.Module:
    return train(distill=FeatureDistill(weight=1.0))


def different(one: nn.Module, other: nn.Module) -> set[str]:
    """The names of the parameters that are not equal."""
    theirs = dict(other.named_parameters())
    return {name for name, value in one.named_parameters() if not torch.equal(value, theirs[name])}


@pytest.fixture(params=["labels", "teacher"])
def result(request: pytest.FixtureRequest) -> nn.Module:
    return request.getfixturevalue({"labels": "trained", "teacher": "distilled"}[request.param])


def test_the_shape_is_kept_and_every_filter_changed(student: nn.Module, result: nn.Module) -> None:
    assert parameters(result) == parameters(student)
    shapes = {name: value.shape for name, value in student.state_dict().items()}
    assert {name: value.shape for name, value in result.state_dict().items()} == shapes
    types = {name: type(module) for name, module in student.named_modules()}
    assert {name: type(module) for name, module in result.named_modules()} == types
    convolutions = {f"{name}.weight" for name, module in student.named_modules() if isinstance(module, nn.Conv2d)}
    dfl = {name for name in convolutions if ".dfl." in name}
    assert different(result, student) >= convolutions - dfl
    assert len(dfl) == 1 and not different(result, student) & dfl


def test_the_box_decoder_is_untouched(result: nn.Module) -> None:
    assert torch.equal(next(head(result).dfl.parameters()).flatten(), torch.arange(BINS).float())


def test_batch_norms_saw_the_pictures(student: nn.Module, result: nn.Module) -> None:
    statistics = {name for name, value in student.state_dict().items() if "running" in name}
    old, new = weights(student), weights(result)
    assert statistics and all(old[name] != new[name] for name in statistics)


def test_a_plain_model_in_eval_mode_comes_back(student: nn.Module, result: nn.Module, tmp_path: Path) -> None:
    assert type(result) is DetectionModel
    assert not [module for module in result.modules() if module.training]
    assert not [module for module in result.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert [type(module) for module in result.modules()] == [type(module) for module in student.modules()]
    assert {value.device.type for value in result.state_dict().values()} == {"cpu"}
    assert {value.dtype for value in result.parameters()} == {torch.float32}
    found = answers(result, noise(2))
    assert found.shape == (2, *OUTPUT[1:])
    assert np.isfinite(found).all()
    torch.save(result, tmp_path / "trained.pt")
    loaded = torch.load(tmp_path / "trained.pt", weights_only=False)
    assert np.array_equal(answers(loaded, noise(2)), found)
    assert (tmp_path / "trained.pt").stat().st_size < 8 * parameters(student)  # no teacher came along


def test_a_seed_decides_all(train: Train, trained: nn.Module) -> None:
    assert weights(train()) == weights(trained)
    assert len(different(train(seed=1), trained)) > 100


def test_the_teacher_decides_too_as_much_as_its_weight(
    train: Train, trained: nn.Module, distilled: nn.Module, baseline: Path
) -> None:
    before = sha256(baseline)
    stronger = train(distill=FeatureDistill(weight=50.0))
    assert sha256(baseline) == before
    assert len(different(distilled, trained)) > 100
    assert len(different(stronger, distilled)) > 100
    assert weights(train(distill=FeatureDistill(weight=50.0))) == weights(stronger)


def test_the_baseline_is_the_teacher_and_the_weight_that_of_its_loss(
    train: Train, model: nn.Module, student: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TaughtLoss] = []
    original = TaughtLoss.__call__

    def spy(self: TaughtLoss, *arguments: Any) -> Any:
        seen.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(TaughtLoss, "__call__", spy)
    train(distill=FeatureDistill(weight=0.7))
    assert len(seen) == PICTURES // 4
    assert {(loss.lesson.feature_weight, loss.lesson.logit_weight) for loss in seen} == {(0.7, 0.0)}
    assert weights(seen[-1].teacher) == weights(model)
    assert set(weights(seen[-1].student)) >= set(weights(student))
    assert seen[-1].student.args.cls == DEFAULT_CFG_DICT["cls"]


def test_input_data_and_folders_are_left_as_they_were(
    train: Train, student: nn.Module, data: Path, places: Places
) -> None:
    before, files = snapshot(student), files_below(data.parent)
    train(distill=FeatureDistill(weight=1.0))
    assert snapshot(student) == before
    assert files_below(data.parent) == files
    assert not places.left()
    assert not torch.are_deterministic_algorithms_enabled()


def test_it_tells_of_every_epoch_once(train: Train) -> None:
    calls: list[tuple[int, int]] = []
    train(epochs=3, on_epoch=lambda done, total, _: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_what_the_listener_raises_ends_the_training(train: Train, student: nn.Module, places: Places) -> None:
    class EnoughError(Exception):
        """Not one that anybody else would catch."""

    calls: list[int] = []

    def stop(done: int, total: int, snapshot: Any) -> None:
        calls.append(done)
        if done == 2:
            raise EnoughError

    before = snapshot(student)
    with pytest.raises(EnoughError):
        train(epochs=5, on_epoch=stop)
    assert calls == [1, 2]
    assert snapshot(student) == before
    assert not places.left()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_that_diverges_says_so(train: Train, places: Places, epochs: int) -> None:
    with pytest.raises(FloatingPointError, match="learning rate"):
        train(epochs=epochs, extra={"cls": 1e38})  # a weight of the loss
    assert not places.left()


def test_settings_of_the_user_reach_the_trainer(train: Train, trained: nn.Module) -> None:
    assert len(different(train(extra={"mosaic": 0.0, "fliplr": 0.0}), trained)) > 100


def test_the_moving_average_of_few_steps_is_close_to_the_last_weights(
    train: Train, student: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step a batch: as many updates of the average as there are batches in all epochs."""
    from ultralytics.utils.torch_utils import ModelEMA

    seen: list[dict[str, torch.Tensor]] = []
    original = ModelEMA.update

    def spy(self: ModelEMA, model: nn.Module) -> None:
        original(self, model)
        seen.append(copy.deepcopy(model.state_dict()))

    monkeypatch.setattr(ModelEMA, "update", spy)
    result = train(epochs=2)
    assert len(seen) == 2 * PICTURES // 4
    average = {name: value.clone() for name, value in student.state_dict().items()}
    for step, state in enumerate(seen, start=1):
        decay = 0.9999 * (1 - np.exp(-step / 2000))
        for name, value in average.items():
            if value.dtype.is_floating_point:
                average[name] = decay * value + (1 - decay) * state[name]
    for name, value in result.state_dict().items():
        if value.dtype.is_floating_point:
            torch.testing.assert_close(value, average[name], rtol=1e-4, atol=1e-5)
