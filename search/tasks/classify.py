"""Classification: one class for a whole picture; data as folders, ``train/<class>/*.png`` and ``val/<class>/*.png``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from search.errors import UserError
from search.tasks.accuracy import ClassificationAccuracy
from search.tasks.kind import IMAGE_SUFFIXES, SPLITS, Batch, DataSet, TaskKind
from search.tasks.resample import drawn, packed
from search.ultra import quiet_ultralytics


def read(path: Path) -> DataSet:
    """Finds the images in a folder with ``train``, ``val`` and perhaps ``test``, each with a folder for every class.

    The classes are the folders of ``train``, in the order of their names.

    Raises:
        UserError: a split or a class has no images, or an image lies outside the folder; says which.
    """
    root = path.resolve()
    names = _folders(root / "train")
    if len(names) < 2:
        raise UserError(
            f"data: {path} has {len(names)} class folders in train; a folder for classification holds "
            "train/<class>/ and val/<class>/ with at least two classes"
        )
    images: dict[str, tuple[Path, ...]] = {}
    for split in SPLITS:
        if split == "test" and not (root / split).is_dir():
            continue
        if unknown := [name for name in _folders(root / split) if name not in names]:
            raise UserError(f"data: {path}: {split} has a class {unknown[0]} that train does not have")
        images[split] = tuple(image for name in names for image in _images(root, root / split / name))
        if not images[split]:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise UserError(f"data: {path}: {split} has no images; known endings are {known}")
    trained = {_class_of(image, root) for image in images["train"]}
    if empty := [name for name in names if name not in trained]:
        raise UserError(f"data: {path}: train has no images of class {empty[0]}")
    return DataSet(source=root, names=names, images=images, task="classify")


def link(data: DataSet, split: str, folder: Path) -> str:
    """Links to the images of a split, in a folder for every class."""
    for name in data.names:
        (folder / split / name).mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(data.images[split]):
        place = folder / split / _class_of(image, data.source) / f"{index:07d}_{image.name}"
        # A link that is there already is from a view that was cut off, or a JPEG that Ultralytics mended in its place.
        if not os.path.lexists(place):
            place.symlink_to(image.resolve())
    return split


def dataset(content: dict[str, Any], split: str, image_size: int) -> Any:
    """Ultralytics' data set; the first one of a view reads every image, for all trials.

    Raises:
        RuntimeError: no image can be read.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.data import ClassificationDataset

    settings: Any = get_cfg(overrides={"imgsz": image_size})
    with quiet_ultralytics():
        found = ClassificationDataset(
            Path(content["path"]) / content[split], settings, augment=False, prefix=split, names=content["names"]
        )
    if not found.samples:
        raise RuntimeError("none of the images can be read")
    return found


def batch(dataset: Any, indices: Sequence[int]) -> Batch:
    """Images with their classes, (N,)."""
    from torch.utils.data import default_collate

    return default_collate([dataset[index] for index in indices])


def singles(batch: Batch) -> list[Batch]:
    """Each image with its own class."""
    return [{"img": image[None], "cls": label[None]} for image, label in zip(batch["img"], batch["cls"], strict=True)]


def build(architecture: Any, classes: int | None) -> Any:
    """Ultralytics' model, untrained."""
    from ultralytics.nn.tasks import ClassificationModel

    return ClassificationModel(architecture, nc=classes, verbose=False)


def mixed_up(model: Mapping[int, str], data: Sequence[str]) -> str:
    """Compares the names in their order: a class of the data has its number by the order of the folders."""
    from ultralytics.nn.autobackend import check_class_names

    known, found = (check_class_names(dict(names)) for names in (model, enumerate(data)))  # ImageNet's codes, too
    other = next((number for number in found if known[number] != found[number]), None)
    if other is None:
        return ""
    return f"class {other} is {known[other]} in the model and {found[other]} in the data, by the order of their names"


def trainer() -> type:
    """Ultralytics' trainer."""
    from ultralytics.models.yolo.classify import ClassificationTrainer

    return ClassificationTrainer


def smoothed(criterion: Any, share: float) -> Any:
    """The cross-entropy, which is all of the loss."""
    from search.stages.losses import SmoothedCrossEntropy

    return SmoothedCrossEntropy(share)


def taught_loss(student: Any, lesson: Any, labels: Any) -> Any:
    """The probabilities of the classes can be taught."""
    from search.stages.distill_classes import TaughtClasses

    return TaughtClasses(student, lesson, labels)


def unlabeled(images: Sequence[Path], view: Path, folder: Path) -> Path:
    """A folder whose training images all lie in one class, which says nothing of them; the cache beside it."""
    classes = sorted(entry.name for entry in (view.parent / "train").iterdir() if entry.is_dir())
    for name in classes:
        (folder / "train" / name).mkdir(parents=True)
    for index, file in enumerate(images):
        (folder / "train" / classes[0] / f"{index:07d}_{file.name}").symlink_to(file.resolve())
    (folder / "val").symlink_to(view.parent / "val")  # Ultralytics wants one; it is not looked at
    return folder / view.name


def validator() -> type:
    """Ultralytics' validator: the shorter side resized, the centre cropped, classes matched by name."""
    from ultralytics.data import build_dataloader
    from ultralytics.models.yolo.classify import ClassificationValidator

    class OrderedValidator(ClassificationValidator):
        """Ultralytics shuffles; what two models say is compared image by image."""

        def get_dataloader(self, dataset_path: Path | str, batch_size: int) -> Any:
            """The images in the order of their files."""
            found: Any = super().get_dataloader(dataset_path, batch_size).dataset
            return build_dataloader(found, batch_size, self.args.workers, shuffle=False, device=str(self.device))

    return OrderedValidator


def accuracy(validator: Any, split: str) -> ClassificationAccuracy:
    """The shares of images whose class is the first, and among the first five; with fewer classes that is all.

    The interval is Wilson's, which says something also where every answer is right.
    """
    import torch

    first = torch.cat([answers[:, 0] for answers in validator.pred])
    hits = (first == torch.cat(list(validator.targets))).numpy()
    bounds = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return ClassificationAccuracy(
        split=split,
        images=len(hits),
        low=float(bounds.low),
        high=float(bounds.high),
        resampled=packed(drawn(len(hits)) @ hits / len(hits)),
        top1=float(validator.metrics.top1),
        top5=float(validator.metrics.top5),
    )


def outputs(module: Any) -> list[Any]:
    """The linear layer of a classification head, a channel for each class."""
    from ultralytics.nn.modules import Classify

    return [module.linear] if isinstance(module, Classify) else []


CLASSIFY = TaskKind(
    name="classify",
    noun="classification",
    read=read,
    link=link,
    dataset=dataset,
    batch=batch,
    singles=singles,
    trainer_data=lambda view: view.parent,
    build=build,
    mixed_up=mixed_up,
    trainer=trainer,
    smoothed=smoothed,
    taught_loss=taught_loss,
    unlabeled=unlabeled,
    validator=validator,
    accuracy=accuracy,
    outputs=outputs,
    trained_nodes=r"conv/|pool/|Flatten|linear/",
    no_use=(
        (r"(structure|prune)\.\w+\.where=neck", "a classifier has no neck; take backbone, head or all"),
        (
            r"structure\.(depthwise|grouped|ghost)\.where=head",
            "a classifier's head has no 3x3 convolution; take backbone or all",
        ),
        (
            r"distill\.kind=(feature|feature_logit)",
            "features are those of a detector's head; a classifier learns from the teacher's answers, kind logit",
        ),
    ),
)


def _folders(place: Path) -> tuple[str, ...]:
    """The names of the folders in ``place``, sorted, without hidden ones."""
    if not place.is_dir():
        raise UserError(f"data: there is no folder {place}; it and a folder in it for each class are needed")
    return tuple(sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _images(root: Path, place: Path) -> list[Path]:
    found = sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    for file in found:
        if not file.resolve().is_relative_to(root):
            raise UserError(f"data: {file} points to {file.resolve()}, outside {root}; only what is inside is read")
    return found


def _class_of(image: Path, root: Path) -> str:
    return image.relative_to(root).parts[1]
