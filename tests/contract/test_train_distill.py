"""A teacher's losses against numpy, and what a student that was taught is made of."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.tasks import load_checkpoint

from search.digits import make_digits
from search.stages.distill import TaughtLoss, add_projectors, feature_loss, lesson, logit_loss
from search.stages.finetune import finetune
from search.stages.trainer import ModuleTrainer
from spaces.recipe import (
    Distill,
    FeatureDistill,
    FeatureLogitDistill,
    Finetune,
    LogitDistill,
    NoDistill,
    Recipe,
    UnlabeledDistill,
)
from tests.tiny import SIZE, files_below, head, parameters, snapshot, tiny_model, weights

BINS = 4


def head_answers(seed: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "scores": torch.from_numpy(rng.normal(size=(2, 3, 5))),
        "boxes": torch.from_numpy(rng.normal(size=(2, 4 * BINS, 5))),
    }


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def brute_force(student: dict[str, Tensor], teacher: dict[str, Tensor], temperature: float) -> float:
    """The mean over cells, with the teacher's confidence as weight, of two kinds of Kullback-Leibler divergence."""
    total, weight = 0.0, 0.0
    ours, theirs = ({key: value.numpy() for key, value in part.items()} for part in (student, teacher))
    for image in range(2):
        for cell in range(5):
            distance = 0.0
            for c in range(3):
                p, q = (1 / (1 + np.exp(-x["scores"][image, c, cell] / temperature)) for x in (theirs, ours))
                distance += divergence(np.array([p, 1 - p]), np.array([q, 1 - q]))
            for side in range(4):
                bins = slice(side * BINS, (side + 1) * BINS)
                p, q = (softmax(x["boxes"][image, bins, cell] / temperature) for x in (theirs, ours))
                distance += divergence(p, q) / 4
            confidence = max(1 / (1 + np.exp(-x)) for x in theirs["scores"][image, :, cell])
            total, weight = total + confidence * distance, weight + confidence
    return temperature**2 * total / weight


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_logit_loss_against_numpy(temperature: float) -> None:
    student, teacher = head_answers(0), head_answers(1)
    assert logit_loss(student, teacher, temperature).item() == pytest.approx(brute_force(student, teacher, temperature))


def test_a_student_that_answers_like_its_teacher_has_nothing_to_learn() -> None:
    teacher = head_answers(1)
    student = {key: value.clone().requires_grad_() for key, value in teacher.items()}
    loss = logit_loss(student, teacher, 3.0)
    loss.backward()
    assert abs(loss.item()) < 1e-12
    for value in student.values():
        assert value.grad is not None and value.grad.abs().max() < 1e-12
    other = {key: value.clone().requires_grad_() for key, value in head_answers(2).items()}
    logit_loss(other, teacher, 3.0).backward()
    assert all(value.grad is not None and value.grad.abs().max() > 1e-3 for value in other.values())


def test_feature_loss_is_that_of_ultralytics() -> None:
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.normal(size=(2, 3, 4, 5))) for _ in range(2))
    confidence = torch.from_numpy(rng.random((2, 1, 20)))
    # Its method uses nothing of the model.
    expected = DistillationModel.loss_sl2(None, student, teacher, 0, (confidence,))  # pyright: ignore[reportArgumentType]
    assert feature_loss(student, teacher, confidence).item() == pytest.approx(expected.item())
    squares = ((student - teacher) ** 2).mean(1).flatten(1).numpy()
    by_hand = (squares * confidence[:, 0].numpy()).sum() / confidence.sum().item()
    assert feature_loss(student, teacher, confidence).item() == pytest.approx(by_hand)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a teacher with twice the channels."""
    path = tmp_path_factory.mktemp("large") / "large.pt"
    torch.save({"model": tiny_model(seed=1, width=0.25)}, path)
    return path


@pytest.fixture
def items(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The parts of the loss at each step."""
    seen: list[dict[str, float]] = []
    stock = ModuleTrainer.optimizer_step

    def step(self: Any) -> None:
        seen.append({key: float(value) for key, value in self.loss_items.items()})
        stock(self)

    monkeypatch.setattr(ModuleTrainer, "optimizer_step", step)
    return seen


def run(model: nn.Module, distill: Distill, data: Path, teacher: Path, **fields: Any) -> nn.Module:
    part = Finetune(**{"epochs": 1, "batch": 4, "mosaic": 0.0, **fields})
    return finetune(model, part, distill, data=data, image_size=SIZE, teacher=teacher, seed=0, threads=1)


@pytest.mark.parametrize("kind", [FeatureDistill, LogitDistill, FeatureLogitDistill])
def test_a_taught_student_is_a_plain_model(
    kind: Any, model: nn.Module, data: Path, baseline: Path, large: Path, items: list[Any], tmp_path: Path
) -> None:
    before, files = snapshot(model), files_below(large.parent)
    part = kind(teacher=str(large), teacher_device="cpu")
    trained = run(model, part, data, baseline)
    assert snapshot(model) == before and files_below(large.parent) == files
    assert weights(trained) == weights(run(model, part, data, baseline))
    assert all(set(item) == {"box_loss", "cls_loss", "dfl_loss", "dis_loss"} and item["dis_loss"] > 0 for item in items)
    assert parameters(trained) == parameters(model)
    assert [type(module) for module in trained.modules()] == [type(module) for module in model.modules()]
    assert not [m for m in trained.modules() if m._forward_hooks or m._forward_pre_hooks]
    torch.save({"model": trained}, tmp_path / "taught.pt")
    assert weights(load_checkpoint(tmp_path / "taught.pt")[0]) == weights(trained)
    assert (tmp_path / "taught.pt").stat().st_size < 1.2 * baseline.stat().st_size  # no teacher within


def test_the_weights_are_factors_and_both_is_the_sum(model: nn.Module, baseline: Path, large: Path, batches: list[Any]):
    def distance(part: Distill) -> float:
        plan = lesson(part, baseline)
        assert plan is not None
        student: Any = deepcopy(model).train()
        torch.manual_seed(0)
        add_projectors(student, plan.teacher)
        loss, found = TaughtLoss(student, plan, lambda preds, batch: (torch.zeros(3), {}))(
            student(batches[0]["img"]), batches[0]
        )
        assert loss.sum().item() == pytest.approx(found["dis_loss"].item() * len(batches[0]["img"]), rel=1e-5)
        return found["dis_loss"].item()

    teacher = str(large)
    feature = distance(FeatureDistill(weight=1, teacher=teacher))
    logit = distance(LogitDistill(weight=1, teacher=teacher))
    assert feature > 0 and logit > 0
    assert distance(FeatureDistill(weight=0.25, teacher=teacher)) == pytest.approx(0.25 * feature, rel=1e-5)
    both = FeatureLogitDistill(feature_weight=0.5, logit_weight=2, teacher=teacher)
    assert distance(both) == pytest.approx(0.5 * feature + 2 * logit, rel=1e-5)
    assert distance(LogitDistill(weight=1)) != pytest.approx(logit, rel=0.01)  # the baseline teaches


def test_pictures_without_labels_are_enough(
    model: nn.Module, data: Path, baseline: Path, large: Path, items: list[Any], tmp_path: Path
) -> None:
    made = make_digits(tmp_path / "made", image_size=SIZE, counts={"train": 9, "val": 1, "test": 1}, seed=5)
    images = tmp_path / "pictures"
    (made.parent / "images" / "train").rename(images)
    before = files_below(images)
    assert not list(images.rglob("*.txt"))
    part = UnlabeledDistill(images=str(images), teacher=str(large))
    trained = run(model, part, data, baseline, ema="none", epochs=4, lr=5e-3)
    assert files_below(images) == before and set(tmp_path.iterdir()) == {tmp_path / "made", images}
    assert all(set(item) == {"dis_loss"} for item in items) and len(items) == 4 * 3  # of 9 pictures, 4 a batch
    assert np.mean([item["dis_loss"] for item in items[-3:]]) < 0.9 * items[0]["dis_loss"]
    changed = {name for name, digest in weights(trained).items() if weights(model)[name] != digest}
    assert {name for name, _ in model.named_parameters() if ".dfl" not in name} <= changed


def test_what_cannot_be_taught_is_refused(model: nn.Module, data: Path, baseline: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"distill\.images: there are no images in"):
        run(model, UnlabeledDistill(images=str(tmp_path)), data, baseline)
    other = tiny_model()
    head(other).nc = 7
    torch.save({"model": other}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="knows 7 classes, the student 10; both must agree"):
        run(model, LogitDistill(teacher=str(tmp_path / "other.pt")), data, baseline)
    with pytest.raises(ValueError, match=r"teacher: there is no file .*missing\.pt"):
        run(model, LogitDistill(teacher=str(tmp_path / "missing.pt")), data, baseline)
    with pytest.raises(ValueError, match="distill needs a finetune step"):
        Recipe(image_size=SIZE, distill=LogitDistill())
    assert lesson(NoDistill(), baseline) is None
