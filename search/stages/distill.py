"""A teacher beside the labels, or in their place: losses that pull a student's features and answers to a teacher's.

The lesson is a part of the student's loss, not of its modules: nothing is hooked, and Ultralytics' trainer sees a
plain model. Only the projectors of ``FeatureDistill`` hang on the student while it trains, since they are trained too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from ultralytics.nn.modules import Detect

from search.stages.heads import load_model
from spaces.recipe import Distill, FeatureDistill, FeatureLogitDistill, LogitDistill, NoDistill, Part, UnlabeledDistill

Answers = dict[str, Any]  # "scores" (N, C, A) logits, "boxes" (N, 4 * bins, A) logits, "feats" inputs of the head
Loss = tuple[Tensor, dict[str, Tensor]]  # to be summed, already times the batch size; and its parts for display


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is taught, with what weight; a weight of 0 teaches nothing."""

    teacher: Path
    device: str
    feature_weight: float = 0.0
    logit_weight: float = 0.0
    temperature: float = 1.0
    labels: bool = True  # whether the labels teach too


def lesson(part: Distill, baseline: Path) -> Lesson | None:
    """What ``part`` teaches, by the teacher that it names or the checkpoint ``baseline``; None if nothing.

    Raises:
        ValueError: there is no such checkpoint.
    """
    if isinstance(part, NoDistill):
        return None
    teacher = baseline if part.teacher == "baseline" else Path(part.teacher)
    if not teacher.is_file():
        raise ValueError(f"teacher: there is no file {teacher}; give baseline, or a path to a checkpoint")
    return Lesson(teacher=teacher, device=part.teacher_device, **TEACHINGS[type(part)](part))


def load_teacher(student: nn.Module, lesson: Lesson) -> tuple[nn.Module, torch.device]:
    """The frozen teacher, on the device that ``lesson`` says or beside the student."""
    device = _device(lesson.device) if lesson.device else next(student.parameters()).device
    return load_model(lesson.teacher).to(device).eval().requires_grad_(False), device


class TaughtLoss:
    """The loss of a student: that of the labels (if they teach), plus its distance from the teacher.

    Ultralytics calls it with the student's answers and the batch, as it calls its own losses.

    Raises:
        ValueError: the teacher cannot teach this student; says why.
    """

    def __init__(self, student: Any, lesson: Lesson, labels: Any) -> None:
        self.student, self.lesson, self.labels = student, lesson, labels
        self.teacher, self.device = load_teacher(student, lesson)
        _check_fit(student, self.teacher, lesson)

    def __call__(self, preds: Any, batch: dict[str, Any]) -> Loss:
        """The loss of the student's answers ``preds`` to ``batch["img"]``, (N, 3, H, W) in [0, 1]."""
        own = _raw(preds)
        losses, items = self.labels(preds, batch) if self.lesson.labels else (own["scores"].new_zeros(0), {})
        with torch.no_grad():
            taught = _raw(self.teacher(batch["img"].to(self.device)))
        distance = self._distance(own, _moved(taught, own["scores"].device))
        return torch.cat([losses, distance[None] * len(batch["img"])]), {**items, "dis_loss": distance.detach()}

    def _distance(self, student: Answers, teacher: Answers) -> Tensor:
        total = student["scores"].new_zeros(())
        if self.lesson.feature_weight:
            confidence = teacher["scores"].sigmoid().amax(1, keepdim=True)
            shapes = [feature.shape[2] * feature.shape[3] for feature in teacher["feats"]]
            features = [project(f) for project, f in zip(self.student.projectors, student["feats"], strict=True)]
            for level in zip(features, teacher["feats"], confidence.split(shapes, -1), strict=True):
                total = total + self.lesson.feature_weight * feature_loss(*level)
        if self.lesson.logit_weight:
            total = total + self.lesson.logit_weight * logit_loss(student, teacher, self.lesson.temperature)
        return total


def add_projectors(student: nn.Module, teacher: Path) -> None:
    """Hangs ``projectors`` on ``student``, in place: they map its features to as many channels as the teacher has.

    Two 1x1 convolutions for each level, as in Ultralytics' DistillationModel.
    """
    wide = _widths(load_model(teacher))
    student.projectors = nn.ModuleList(
        nn.Sequential(nn.Conv2d(own, other, 1), nn.ReLU(inplace=True), nn.Conv2d(other, other, 1))
        for own, other in zip(_widths(student), wide, strict=True)
    )


def feature_loss(student: Tensor, teacher: Tensor, confidence: Tensor) -> Tensor:
    """The mean squared distance of features (N, C, H, W), weighted by ``confidence`` (N, 1, H * W).

    The loss of Ultralytics' DistillationModel: cells where the teacher sees an object count for more.
    """
    squares = functional.mse_loss(student.flatten(2), teacher.flatten(2), reduction="none")
    return (squares * confidence).sum() / (confidence.sum() * student.shape[1] + 1e-9)


def logit_loss(student: Answers, teacher: Answers, temperature: float) -> Tensor:
    """The divergence of the student's answers from the teacher's, a number of at least 0.

    Of every cell: the divergence of each class score, as the chance of a yes, and of the distributions of the four
    box sides, averaged over the sides; both softened by ``temperature`` and so times its square, as in Hinton et al.
    (arXiv:1503.02531) and Localization Distillation (Zheng et al., arXiv:2102.12252). A head with one number for a
    side, as YOLO26's, has no distributions: there it is the smooth distance of the numbers, in cells, unsoftened.
    Cells are averaged with the teacher's highest class score as their weight.
    """
    confidence = teacher["scores"].sigmoid().amax(1)  # (N, A)
    ours, theirs = student["scores"] / temperature, teacher["scores"] / temperature
    chance = theirs.sigmoid()
    # KL of two coins: cross-entropy minus entropy, so that it is 0 for equal answers.
    scores = (
        functional.binary_cross_entropy_with_logits(ours, chance, reduction="none")
        - functional.binary_cross_entropy_with_logits(theirs, chance, reduction="none")
    ).sum(1)
    own, taught = (answers["boxes"].unflatten(1, (4, -1)) for answers in (student, teacher))  # (N, 4, bins, A)
    if own.shape[2] > 1:
        sides = [values.div(temperature).log_softmax(2) for values in (own, taught)]
        boxes = functional.kl_div(*sides, reduction="none", log_target=True).sum(2).mean(1)  # (N, A)
    else:
        boxes = functional.smooth_l1_loss(own, taught, reduction="none").mean((1, 2)) / temperature**2
    return temperature**2 * ((scores + boxes) * confidence).sum() / (confidence.sum() + 1e-9)


def _raw(preds: Any) -> Answers:
    """The raw answers of a head, of a model that trains or one that predicts."""
    return preds[1] if isinstance(preds, tuple) else preds


def _moved(answers: Answers, device: torch.device) -> Answers:
    """``answers`` on ``device``."""
    return {
        "scores": answers["scores"].to(device),
        "boxes": answers["boxes"].to(device),
        "feats": [feature.to(device) for feature in answers["feats"]],
    }


def _device(name: str) -> torch.device:
    """The device that a ``teacher_device`` names, counted among those that this process sees.

    Raises:
        ValueError: it is not there.
    """
    device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    if device.type == "cuda" and (device.index or 0) >= (seen := torch.cuda.device_count()):
        raise ValueError(
            f"teacher_device: {name} is not there, a trial sees {seen} GPUs; raise resources.gpus_per_trial, or leave "
            "it empty to teach beside the student"
        )
    return device


def _head(model: nn.Module) -> Detect:
    return next(module for module in model.modules() if isinstance(module, Detect))


def _widths(model: nn.Module) -> list[int]:
    """The channels of each input of the head: those of the first convolution that reads it."""
    convs = [next(m for m in branch.modules() if isinstance(m, nn.Conv2d)) for branch in _head(model).cv2]
    return [conv.in_channels for conv in convs]


def _check_fit(student: Any, teacher: Any, lesson: Lesson) -> None:
    ours, theirs = _head(student), _head(teacher)
    if theirs.nc != ours.nc:
        raise ValueError(f"teacher: {lesson.teacher} knows {theirs.nc} classes, the student {ours.nc}; both must agree")
    if theirs.stride.tolist() != ours.stride.tolist():
        raise ValueError(f"teacher: {lesson.teacher} has strides {theirs.stride.tolist()}, the student has others")
    if lesson.logit_weight and theirs.reg_max != ours.reg_max:
        raise ValueError(
            f"teacher: {lesson.teacher} has {theirs.reg_max} bins for a box side, the student {ours.reg_max}; "
            "distill features only"
        )


# What each way to distill teaches. A new way is a type, a line here, and its loss above.
TEACHINGS: dict[type[Part], Callable[[Any], dict[str, Any]]] = {
    FeatureDistill: lambda part: {"feature_weight": part.weight},
    LogitDistill: lambda part: {"logit_weight": part.weight, "temperature": part.temperature},
    FeatureLogitDistill: lambda part: {
        "feature_weight": part.feature_weight,
        "logit_weight": part.logit_weight,
        "temperature": part.temperature,
    },
    UnlabeledDistill: lambda part: {"logit_weight": part.weight, "temperature": part.temperature, "labels": False},
}
