"""The questions that a task answers in its own way: a task is one object that holds its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TaskName = Literal["detect", "classify"]  # Ultralytics' words
Batch = dict[str, Any]  # an Ultralytics training batch; "img" is (N, 3, H, W) float in [0, 1]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set, checked: class names and the image files of each split.

    ``source`` is the file or the folder that the user named.
    """

    source: Path
    names: tuple[str, ...]
    images: dict[str, tuple[Path, ...]]
    task: TaskName = "detect"


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """One task. A further task is one more of these, in ``search.tasks.table``.

    Attributes:
        name: Ultralytics' word, as in its checkpoints and in the metadata of its files.
        noun: what the task is called in sentences.
        read: the data set that the user's path names; raises UserError.
        link: makes links to the images of a split (data, split, folder) and returns the view's entry for it.
        dataset: Ultralytics' data set of a split of a view (content, split, image size), without augmentation.
        batch: a training batch of some of its images, by their indices.
        singles: a training batch as batches of one image.
        trainer_data: what Ultralytics' engines take for a view (the path of its ``data.yaml``).
        build: an untrained model from an architecture and the number of classes.
        mixed_up: how the names of the classes of a model and of the data (in order) contradict one another; empty if
            they do not.
        trainer: Ultralytics' trainer class.
        smoothed: Ultralytics' loss with smoothed class targets, of its loss and the share that is spread.
        taught_loss: the loss of a student with a teacher (student, lesson, loss of the labels).
        unlabeled: a view in a folder that trains on links to images without labels (images, view, folder).
        validator: Ultralytics' validator class.
        accuracy: what a validator that has run (and the split's name) says.
        outputs: the layers of a head whose output channels mean something; none for any other module.
        trained_nodes: a regular expression for the part of a node's name in an exported head, after the head's own,
            where it belongs to the head's layers with trained weights; what is left turns their outputs into answers.
        no_use: parts of recipes that make no sense, as a regular expression over ``name=value`` of the flat
            parameters, with the reason.
    """

    name: TaskName
    noun: str
    read: Callable[[Path], DataSet]
    link: Callable[[DataSet, str, Path], str]
    dataset: Callable[[dict[str, Any], str, int], Any]
    batch: Callable[[Any, Sequence[int]], Batch]
    singles: Callable[[Batch], list[Batch]]
    trainer_data: Callable[[Path], Path]
    build: Callable[[Any, int | None], Any]
    mixed_up: Callable[[Mapping[int, str], Sequence[str]], str]
    trainer: Callable[[], type]
    smoothed: Callable[[Any, float], Any]
    taught_loss: Callable[[Any, Any, Any], Any]
    unlabeled: Callable[[Sequence[Path], Path, Path], Path]
    validator: Callable[[], type]
    accuracy: Callable[[Any, str], Any]
    outputs: Callable[[Any], list[Any]]
    trained_nodes: str
    no_use: tuple[tuple[str, str], ...] = ()
