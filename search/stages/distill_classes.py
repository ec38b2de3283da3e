"""A teacher for a classifier: its softened probabilities, beside the labels or in their place.

Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (arXiv:1503.02531).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from search.stages.distill import Lesson, Loss, load_teacher
from search.tasks.table import kind_of_model


class TaughtClasses:
    """The loss of a student: that of the labels (if they teach), plus its divergence from the teacher.

    Ultralytics calls it with the student's answers and the batch, as it calls its own losses.

    Raises:
        ValueError: the teacher cannot teach this student; says why.
    """

    def __init__(self, student: Any, lesson: Lesson, labels: Any) -> None:
        assert not lesson.feature_weight, "refused for a classifier, see no_use"
        self.lesson, self.labels = lesson, labels
        self.teacher, self.device = load_teacher(student, lesson)
        _check_fit(student, self.teacher, lesson)

    def __call__(self, preds: Any, batch: dict[str, Any]) -> Loss:
        """The loss of the student's answers ``preds`` to ``batch["img"]``, (N, 3, H, W) in [0, 1]."""
        own = logits(preds)
        losses, items = self.labels(preds, batch) if self.lesson.labels else (own.new_zeros(()), {})
        with torch.no_grad():
            taught = logits(self.teacher(batch["img"].to(self.device))).to(own.device)
        distance = self.lesson.logit_weight * class_divergence(own, taught, self.lesson.temperature)
        return losses + distance, {**items, "dis_loss": distance.detach()}


def class_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The Kullback-Leibler divergence of softened class probabilities, a mean over images, times ``temperature``².

    The factor keeps the gradients of one size whatever the temperature.

    Args:
        student: logits, (N, C).
        teacher: logits, (N, C).
        temperature: what both are divided by; 1 leaves the probabilities as they are.
    """
    ours, theirs = ((answers / temperature).log_softmax(1) for answers in (student, teacher))
    return temperature**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def logits(preds: Any) -> Tensor:
    """The logits, (N, C), of a classifier that trains or of one that predicts, which gives probabilities too."""
    return preds[1] if isinstance(preds, (list, tuple)) else preds


def _check_fit(student: Any, teacher: Any, lesson: Lesson) -> None:
    ours, theirs = kind_of_model(student), kind_of_model(teacher)
    if theirs is not ours:
        raise ValueError(f"teacher: {lesson.teacher} is for {theirs.noun}, the student for {ours.noun}")
    classes = list(student.names.values())
    if len(teacher.names) != len(classes):
        raise ValueError(
            f"teacher: {lesson.teacher} knows {len(teacher.names)} classes, the student {len(classes)}; both must agree"
        )
    if mixed := ours.mixed_up(teacher.names, classes):
        raise ValueError(f"teacher: {lesson.teacher} and the student disagree on the classes: {mixed}")
