"""Detection: boxes with a class each; data as Ultralytics' ``data.yaml`` describes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from search.errors import UserError
from search.tasks.accuracy import DetectionAccuracy
from search.tasks.kind import IMAGE_SUFFIXES, SPLITS, Batch, DataSet, TaskKind
from search.tasks.resample import Boxes, drawn, interval, mean_precision, packed


def read(path: Path) -> DataSet:
    """Reads a ``data.yaml`` and finds its images; relative paths are relative to that file.

    Raises:
        UserError: the file or a split is missing, or has no images; says which and where it looked.
    """
    if not path.is_file():
        raise UserError(f"data: there is no file {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"data: {path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content.get("names"):
        raise UserError(f"data: {path} is no Ultralytics data file: it needs train, val and names")
    names = _names(content["names"], path)
    root = (path.parent / str(content.get("path") or ".")).resolve()
    images: dict[str, tuple[Path, ...]] = {}
    for split in SPLITS:
        if content.get(split):
            images[split] = _images(root, content[split], f"data: {path}: {split}")
        elif split != "test":
            raise UserError(f"data: {path} has no {split} split; train and val are both needed")
    return DataSet(source=path.resolve(), names=names, images=images)


def link(data: DataSet, split: str, folder: Path) -> str:
    """Links to the images of a split and to their labels, and the list of the former, which may move with them."""
    links = [_link(image, index, folder, split) for index, image in enumerate(data.images[split])]
    lines = [f"./{link.relative_to(folder).as_posix()}\n" for link in links]  # Ultralytics' way for beside the list
    (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return f"{split}.txt"


def dataset(content: dict[str, Any], split: str, image_size: int) -> Any:
    """Ultralytics' data set; the first one of a view scans the labels, for all trials."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    names = content["names"]
    return YOLODataset(
        img_path=str(Path(content["path"]) / content[split]),
        imgsz=image_size,
        augment=False,
        hyp=get_cfg(),
        rect=False,
        data={"names": names, "nc": len(names), "channels": 3},
        task="detect",
        prefix="",
    )


def batch(dataset: Any, indices: Sequence[int]) -> Batch:
    """Images with their boxes."""
    content = dataset.collate_fn([dataset[index] for index in indices])
    return {**content, "img": content["img"].float() / 255}


def singles(batch: Batch) -> list[Batch]:
    """Each image with its own boxes."""
    import torch

    images: list[Batch] = []
    for index, image in enumerate(batch["img"]):
        own = batch["batch_idx"] == index
        boxes = {"cls": batch["cls"][own], "bboxes": batch["bboxes"][own]}
        images.append({"img": image[None], "batch_idx": torch.zeros(int(own.sum())), **boxes})
    return images


def build(architecture: Any, classes: int | None) -> Any:
    """Ultralytics' model, untrained, with one head."""
    from ultralytics.nn.tasks import DetectionModel

    from search.stages.heads import keep_one_head

    model = DetectionModel(architecture, nc=classes, verbose=False)
    keep_one_head(model)
    return model


def trainer() -> type:
    """Ultralytics' trainer."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    return DetectionTrainer


def smoothed(criterion: Any, share: float) -> Any:
    """The scores' cross-entropy is what changes."""
    from search.stages.losses import smooth_boxes

    return smooth_boxes(criterion, share)


def taught_loss(student: Any, lesson: Any, labels: Any) -> Any:
    """Features, scores and box distributions can be taught."""
    from search.stages.distill import TaughtLoss

    return TaughtLoss(student, lesson, labels)


def unlabeled(images: Sequence[Path], view: Path, folder: Path) -> Path:
    """A data file whose training images have empty labels beside them, and the cache."""
    links, labels = folder / "images", folder / "labels"  # Ultralytics refuses a data set without any label file
    links.mkdir()
    labels.mkdir()
    for index, file in enumerate(images):
        (links / f"{index:07d}_{file.name}").symlink_to(file.resolve())
        (labels / f"{index:07d}_{file.stem}.txt").touch()
    content = yaml.safe_load(view.read_text(encoding="utf-8"))
    new = folder / "data.yaml"
    new.write_text(yaml.safe_dump({**content, "train": str(links)}), encoding="utf-8")
    return new


def validator() -> type:
    """Ultralytics' validator, which also keeps what it found in each image as ``boxes``."""
    from ultralytics.models.yolo.detect import DetectionValidator

    class KeepingValidator(DetectionValidator):
        """Ultralytics forgets the images as soon as it has the metrics."""

        def get_stats(self) -> dict[str, Any]:
            """The metrics."""
            stats = self.metrics.stats
            names = {"hits": "tp", "scores": "conf", "classes": "pred_cls", "labels": "target_cls"}
            self.boxes = Boxes(**{field: tuple(stats[name]) for field, name in names.items()})
            return super().get_stats()

    return KeepingValidator


def accuracy(validator: Any, split: str) -> DetectionAccuracy:
    """The metrics of boxes, over all classes."""
    box, images = validator.metrics.box, int(validator.seen or 0)
    resampled = mean_precision(validator.boxes, drawn(images))
    low, high = interval(float(box.map), resampled, images)
    return DetectionAccuracy(
        split=split,
        images=images,
        low=low,
        high=high,
        resampled=packed(resampled),
        map50_95=float(box.map),
        map50=float(box.map50),
        precision=float(box.mp),
        recall=float(box.mr),
    )


def outputs(module: Any) -> list[Any]:
    """The last convolutions of a detection head and its box decoder."""
    from ultralytics.nn.modules import Detect

    if not isinstance(module, Detect):
        return []
    branches: list[Any] = [*module.cv2, *module.cv3]
    return [*(branch[-1] for branch in branches), module.dfl]


DETECT = TaskKind(
    name="detect",
    noun="detection",
    read=read,
    link=link,
    dataset=dataset,
    batch=batch,
    singles=singles,
    trainer_data=lambda view: view,
    build=build,
    mixed_up=lambda model, data: "",  # labels are numbers, and names may be in any language
    trainer=trainer,
    smoothed=smoothed,
    taught_loss=taught_loss,
    unlabeled=unlabeled,
    validator=validator,
    accuracy=accuracy,
    outputs=outputs,
    trained_nodes=r"cv[23]\.",
)


def _names(content: Any, path: Path) -> tuple[str, ...]:
    """Class names in the order of the classes, from a list or from a mapping of their numbers."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        raise UserError(f"data: {path}: names must be a list or a mapping of class names, got {content!r}")
    names = {str(number): str(name) for number, name in content.items()}
    numbers = [str(number) for number in range(len(content))]
    if set(names) != set(numbers):
        raise UserError(f"data: {path}: names must number the classes from 0, without a gap; got {list(content)}")
    return tuple(names[number] for number in numbers)


def _images(root: Path, entry: Any, where: str) -> tuple[Path, ...]:
    found: list[Path] = []
    for item in entry if isinstance(entry, list) else [entry]:
        place = root / str(item)
        if place.is_dir():
            found += [file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
        elif place.suffix == ".txt" and place.is_file():
            lines = place.read_text(encoding="utf-8").split("\n")
            listed = [place.parent / line.strip() for line in lines if line.strip()]
            if missing := next((file for file in listed if not file.is_file()), None):
                raise UserError(f"{where}: {place} lists {missing}, which is not there")
            found += listed
        else:
            raise UserError(f"{where}: there is no {place}")
    if not found:
        raise UserError(f"{where}: no images in {entry}; known endings are {', '.join(sorted(IMAGE_SUFFIXES))}")
    return tuple(sorted(found))


def _link(image: Path, index: int, folder: Path, split: str) -> Path:
    """A link to ``image`` and one to its labels, under a name that no other image of the split has."""
    from ultralytics.data.utils import img2label_paths

    label = Path(img2label_paths([str(image)])[0])
    link = folder / "images" / split / f"{index:07d}_{image.name}"
    label_link = folder / "labels" / split / f"{link.stem}.txt"
    for target, place in ((image, link), (label, label_link)):
        # A link that is there already is from a view that was cut off, or a JPEG that Ultralytics mended in its place.
        if target.exists() and not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target.resolve())
    return link
