"""Training a classifier: it learns, is taught by a teacher's answers, and is rounded while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from search.cache import StageCache
from search.data import sample_batches
from search.pipeline import Inputs, shape, train, write_leaf
from search.stages.distill import lesson
from search.stages.distill_classes import TaughtClasses, class_divergence, logits
from search.stages.export import export_onnx
from search.stages.finetune import finetune
from search.stages.heads import load_model
from search.stages.labelled import batch_loss
from search.stages.losses import SmoothedCrossEntropy, label_loss
from search.stages.prune import prune_channels
from search.stages.qat import prepared, rounded_convs, settled
from spaces.recipe import (
    ChannelPrune,
    Distill,
    Export,
    Finetune,
    Int8Qat,
    Int8Static,
    LogitDistill,
    MagnitudeSparsify,
    NoDistill,
    Recipe,
    UnlabeledDistill,
    WeightQat,
)
from tests.onnx_look import optimised
from tests.tiny import CLASSES, files_below, noise, onnx_answers, parameters, snapshot, weights
from tests.tiny_classifier import SIDE, head, tiny_classifier

PLAIN: dict[str, Any] = {"auto_augment": "", "erasing": 0.0, "fliplr": 0.0}


@pytest.fixture(scope="module")
def student(classifier: nn.Module) -> nn.Module:
    return prune_channels(classifier, ChannelPrune(ratio=0.5, round_to=4), image_size=SIDE, batches=[])


@pytest.fixture(scope="module")
def pictures(class_view: Path) -> dict[str, Any]:
    [batch] = sample_batches(class_view, image_size=SIDE, count=1, batch=80, seed=0)
    return batch


def trained(
    model: nn.Module, teacher: Path, view: Path, distill: Distill | None = None, *, epochs: int = 3, seed: int = 0
) -> nn.Module:
    part = Finetune(epochs=epochs, batch=8, ema="epoch", lr=3e-3)
    return finetune(
        model,
        part,
        distill or NoDistill(),
        data=view,
        image_size=SIDE,
        teacher=teacher,
        seed=seed,
        threads=1,
        extra=PLAIN,
    )


def loss(model: nn.Module, pictures: dict[str, Any]) -> float:
    with torch.no_grad():
        return float(batch_loss(model, pictures))


def distance(student: nn.Module, teacher: nn.Module, pictures: dict[str, Any]) -> float:
    """How far the answers are apart, by the definition, in numpy."""
    with torch.no_grad():
        probabilities: list[Any] = [model(pictures["img"])[0] for model in (student, teacher)]
    ours, theirs = (answers.double().numpy() for answers in probabilities)
    return float((theirs * (np.log(theirs + 1e-12) - np.log(ours + 1e-12))).sum(1).mean())


# --- labels


def test_a_pruned_classifier_learns(
    student: nn.Module, class_baseline: Path, class_view: Path, pictures: dict[str, Any], tmp_path: Path
) -> None:
    before, files = snapshot(student), files_below(class_view.parent)
    result = trained(student, class_baseline, class_view)
    assert snapshot(student) == before
    assert files_below(class_view.parent) == files
    assert loss(result, pictures) < 0.5 * loss(student, pictures)
    assert parameters(result) == parameters(student)
    names: Any = result.names
    assert list(names.values()) == [str(label) for label in range(CLASSES)]
    assert weights(trained(student, class_baseline, class_view)) == weights(result)
    assert weights(trained(student, class_baseline, class_view, seed=1)) != weights(result)
    torch.save({"model": result, "train_args": {"task": "classify"}}, tmp_path / "again.pt")
    assert weights(load_model(tmp_path / "again.pt")) == weights(result)
    path = export_onnx(result, Export(), image_size=SIDE, path=tmp_path / "model.onnx")
    with torch.no_grad():
        predicted: Any = result(torch.from_numpy(np.concatenate(noise(4, size=SIDE))))
    np.testing.assert_allclose(onnx_answers(path, noise(4, size=SIDE)), predicted[0].numpy(), atol=1e-4)


def test_smoothed_labels_are_what_the_paper_says(classifier: nn.Module, pictures: dict[str, Any]) -> None:
    criterion = label_loss(classifier, 0.2)
    assert isinstance(criterion, SmoothedCrossEntropy)
    with torch.no_grad():
        predicted = classifier(pictures["img"])
    found, _ = criterion(predicted, pictures)
    scores = predicted[1].double().numpy()
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    target = np.full_like(logs, 0.2 / CLASSES)
    target[np.arange(len(target)), pictures["cls"].numpy()] += 0.8
    assert float(found) == pytest.approx(-(target * logs).sum(1).mean(), rel=1e-4)
    plain, _ = label_loss(classifier, 0.0)(predicted, pictures)
    assert float(plain) == pytest.approx(-logs[np.arange(len(logs)), pictures["cls"].numpy()].mean(), rel=1e-3)


# --- a teacher


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence_is_that_of_softened_probabilities(temperature: float) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 6, CLASSES)) * 5
    softened = [np.exp(answers / temperature) for answers in (ours, theirs)]
    p, q = (answers / answers.sum(1, keepdims=True) for answers in softened)
    expected = temperature**2 * (q * np.log(q / p)).sum(1).mean()
    student, teacher = Tensor(ours), Tensor(theirs)
    assert float(class_divergence(student, teacher, temperature)) == pytest.approx(expected, rel=1e-4)
    assert float(class_divergence(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-6)


def test_the_lesson_is_added_to_the_loss_of_the_labels(
    student: nn.Module, classifier: nn.Module, class_baseline: Path, pictures: dict[str, Any]
) -> None:
    plan = lesson(LogitDistill(weight=0.7, temperature=2.0), class_baseline)
    assert plan is not None
    with torch.no_grad():
        predicted, taught = student(pictures["img"]), logits(classifier(pictures["img"]))
        found, items = TaughtClasses(student, plan, label_loss(student, 0.0))(predicted, pictures)
        labels, _ = label_loss(student, 0.0)(predicted, pictures)
    expected = 0.7 * class_divergence(predicted[1], taught, 2.0)
    assert float(found) == pytest.approx(float(labels + expected), rel=1e-5)
    assert float(items["dis_loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_teacher_alone_draws_the_student_to_its_answers(
    student: nn.Module,
    classifier: nn.Module,
    class_baseline: Path,
    class_view: Path,
    scans: Path,
    pictures: dict[str, Any],
) -> None:
    before, files = snapshot(student), files_below(scans)
    part = UnlabeledDistill(images=str(scans / "train"), weight=1.0, temperature=2.0)
    result = trained(student, class_baseline, class_view, part)
    assert (snapshot(student), files_below(scans)) == (before, files)
    assert distance(result, classifier, pictures) < 0.95 * distance(student, classifier, pictures)
    assert weights(trained(student, class_baseline, class_view, part)) == weights(result)
    few = UnlabeledDistill(images=str(scans / "test"), weight=1.0, temperature=2.0)
    assert weights(trained(student, class_baseline, class_view, few)) != weights(result)


def test_a_teacher_beside_the_labels_changes_what_is_learnt(
    student: nn.Module, class_baseline: Path, class_view: Path
) -> None:
    taught = trained(student, class_baseline, class_view, LogitDistill(weight=5.0, temperature=2.0), epochs=1)
    alone = trained(student, class_baseline, class_view, epochs=1)
    assert weights(taught) != weights(alone)
    assert parameters(taught) == parameters(alone)


def test_teachers_that_do_not_fit_are_refused(student: nn.Module, baseline: Path, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        plan = lesson(LogitDistill(), path)
        assert plan is not None
        with pytest.raises(ValueError, match="teacher") as caught:
            TaughtClasses(student, plan, None)
        return str(caught.value)

    assert "is for detection, the student for classification" in refused(baseline)
    other = tiny_classifier()
    other.names = {label: chr(97 + label) for label in range(CLASSES)}
    torch.save({"model": other}, tmp_path / "other.pt")
    assert "class 0 is a in the model and 0 in the data" in refused(tmp_path / "other.pt")
    other.names = {0: "0"}
    torch.save({"model": other}, tmp_path / "few.pt")
    assert "knows 1 classes, the student 10" in refused(tmp_path / "few.pt")


# --- rounding and zeros


def levels(weight: np.ndarray) -> int:
    """The most values that a channel has."""
    return max(len(np.unique(row)) for row in weight.reshape(len(weight), -1))


def test_weights_end_on_the_lattice_in_the_file_too(
    student: nn.Module, class_baseline: Path, class_view: Path, tmp_path: Path
) -> None:
    part = WeightQat(bits=2, epochs=1)
    before = snapshot(student)
    result = settled(trained(prepared(student, part), class_baseline, class_view, epochs=1), part)
    assert snapshot(student) == before
    assert len(rounded_convs(result, part)) == 25  # all convolutions but the first
    path = export_onnx(result, Export(), image_size=SIDE, path=tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = [levels(stored[node.input[1]]) for node in graph.node if node.op_type in {"Conv", "Gemm"}]
    assert len(found) == 27
    assert max(found[1:-1]) == 3  # -1, 0 and 1 times a scale
    assert min(found[0], found[-1]) > 3


def test_int8_training_rounds_the_linear_layer_too(
    student: nn.Module, class_baseline: Path, class_view: Path, pictures: dict[str, Any]
) -> None:
    part = Int8Qat(epochs=1)
    result = settled(trained(prepared(student, part), class_baseline, class_view, epochs=1), part)
    rounded = rounded_convs(result, part)
    assert len(rounded) == 27 and head(result).linear in rounded.values()
    assert all(levels(layer.weight.detach().numpy()) <= 255 for layer in rounded.values())
    assert not any(module._forward_pre_hooks for module in result.modules())
    assert loss(result, pictures) < loss(student, pictures)


def test_a_whole_recipe(class_baseline: Path, class_view: Path, tmp_path: Path) -> None:
    """Prune, zeros, activation, a taught fine-tune, QAT and int8, through the pipeline."""
    recipe = Recipe(
        image_size=SIDE,
        activation="relu",
        prune=ChannelPrune(ratio=0.5, method="taylor", round_to=4),
        sparsify=MagnitudeSparsify(ratio=0.5),
        finetune=Finetune(epochs=2, batch=16, swap_epochs=1, label_smoothing=0.1),
        distill=LogitDistill(),
        qat=Int8Qat(epochs=1),
        quantize=Int8Static(images=8),
    )
    (tmp_path / "cache").mkdir()
    inputs = Inputs(
        baseline=class_baseline, data=class_view, cache=StageCache(tmp_path / "cache"), train_settings=PLAIN
    )
    shaped = shape(recipe, inputs)
    model = train(shaped, recipe, inputs)
    assert parameters(model) == parameters(shaped)
    zeros = [float((m.weight == 0).float().mean()) for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert min(zeros) >= 0.49
    file = write_leaf(model, recipe, inputs, folder=tmp_path / "leaf")
    fused = optimised(file)
    assert (fused["QLinearConv"], fused["QGemm"], fused["Conv"], fused["Gemm"]) == (26, 1, 0, 0)
    assert onnx_answers(file, noise(2, size=SIDE)).sum(1) == pytest.approx([1, 1], abs=1e-3)
