"""Data sets: every layout is found, the view is a faithful set of links, and the source stays untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from search.data import DataSet, calibration_images, make_view, read_data, sample_batches
from search.errors import UserError

SIZE = 64  # pixels
TRAIN_REDS = [10, 60, 110, 160, 210]  # every training picture is one shade of red, so that its pixels name it
VAL_GREEN = 200


def picture(path: Path, colour: tuple[int, int, int], boxes: list[tuple[float, ...]] | None = None) -> Path:
    """A picture of one colour, and its label file (class, x centre, y centre, width, height) if it has boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIZE, SIZE), colour).save(path)
    if boxes is not None:
        label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("".join(" ".join(map(str, box)) + "\n" for box in boxes))
    return path


def data_yaml(root: Path, **content: Any) -> Path:
    path = root / "data.yaml"
    content = {"train": "images/train", "val": "images/val", "names": ["cat", "dog"], **content}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def box(index: int) -> tuple[float, ...]:
    return (index % 2, 0.5, 0.5, 0.1 * (index + 1), 0.25)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five training pictures, one of them in a sub-folder, and two to validate with, one without labels."""
    root = tmp_path / "my data"
    for index, red in enumerate(TRAIN_REDS[:-1]):
        picture(root / "images" / "train" / f"{index}.png", (red, 0, 0), [box(index)])
    picture(root / "images" / "train" / "more" / "0.png", (TRAIN_REDS[-1], 0, 0), [box(4), box(5)])
    picture(root / "images" / "val" / "0.png", (0, VAL_GREEN, 0), [box(0)])
    picture(root / "images" / "val" / "1 of 2.png", (0, VAL_GREEN, 0))
    data_yaml(root)
    return root


@pytest.fixture
def view(source: Path, tmp_path: Path) -> Path:
    return make_view(read_data(source / "data.yaml"), tmp_path / "study" / "data")


def snapshot(root: Path) -> dict[Path, tuple[int, bytes]]:
    """Everything below ``root``; a folder's time changes when a file is made or removed in it, even for a moment."""
    return {p: (p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in [root, *root.rglob("*")]}


def labels_of(view: Path, split: str) -> dict[str, list[list[float]]]:
    """The boxes of each picture of a view by the picture's real path, as Ultralytics reads them."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    content = yaml.safe_load(view.read_text())
    dataset = YOLODataset(
        img_path=str(view.parent / content[split]), imgsz=SIZE, augment=False, hyp=get_cfg(), data=content, prefix=""
    )
    return {
        str(Path(label["im_file"]).resolve()): np.hstack([label["cls"], label["bboxes"]]).round(4).tolist()
        for label in dataset.labels
    }


def reds(images: list[np.ndarray]) -> list[int]:
    """The shade of red of each picture, which names it; fails for a picture that is not plain red."""
    for image in images:
        assert (image[0, 1:] == 0).all()
        assert (image[0, 0] == image[0, 0, 0, 0]).all()
    return [round(255 * float(image[0, 0, 0, 0])) for image in images]


# --- reading


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("images/a", ["a/1.png", "a/2.JPG", "a/deep/3.png"]),
        ("images", ["a/1.png", "a/2.JPG", "a/deep/3.png", "b/4.webp"]),
        (["images/a/deep", "images/b"], ["a/deep/3.png", "b/4.webp"]),
        ("list.txt", ["a/1.png", "a/2.JPG", "b/4.webp"]),
        (["list.txt", "images/a/deep"], ["a/1.png", "a/2.JPG", "a/deep/3.png", "b/4.webp"]),
    ],
)
def test_layouts_of_a_split(tmp_path: Path, entry: str | list[str], found: list[str]) -> None:
    images = tmp_path.resolve() / "images"
    for name in ("a/1.png", "a/2.JPG", "a/deep/3.png", "b/4.webp", "a/notes.txt", "a/labels.cache"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).touch()
    (tmp_path / "list.txt").write_text(f"images/a/1.png\n\n./images/a/2.JPG\r\n{images}/b/4.webp\n")
    data = read_data(data_yaml(tmp_path, train=entry, val="images/b"))
    assert [path.resolve() for path in data.images["train"]] == [images / name for name in found]
    assert data.images["val"] == (images / "b" / "4.webp",)
    assert "test" not in data.images


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cat", "dog"], ("cat", "dog")),
        ({0: "cat", 1: "dog"}, ("cat", "dog")),
        ({1: "dog", 0: "cat"}, ("cat", "dog")),
        ({"0": "cat", "1": "dog"}, ("cat", "dog")),  # Ultralytics takes these too
        ([1, 2], ("1", "2")),
    ],
)
def test_names_are_in_the_order_of_their_classes(source: Path, names: Any, expected: tuple[str, ...]) -> None:
    assert read_data(data_yaml(source, names=names)).names == expected


@pytest.mark.parametrize("names", [{1: "cat", 3: "dog"}, {"a": "cat"}, {-1: "cat", 0: "dog"}])
def test_names_that_leave_classes_out_are_refused(source: Path, names: Any) -> None:
    with pytest.raises(UserError, match=r"data\.yaml: names must number the classes from 0, without a gap"):
        read_data(data_yaml(source, names=names))


@pytest.mark.parametrize("absolute", [False, True])
def test_path_is_relative_to_the_file(source: Path, absolute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    (source / "config").mkdir()
    root = str(source) if absolute else ".."
    file = data_yaml(source / "config", path=root, test="images/val")
    data = read_data(file.relative_to(source.parent))
    assert data.source == file.resolve()
    assert {split: len(images) for split, images in data.images.items()} == {"train": 5, "val": 2, "test": 2}
    assert all(image.is_absolute() and image.is_file() for images in data.images.values() for image in images)


def test_a_list_that_names_a_missing_image_is_refused(source: Path) -> None:
    (source / "list.txt").write_text("images/train/0.png\nimages/train/gone.png\n")
    with pytest.raises(UserError, match=r"data\.yaml: train: .*list\.txt lists .*gone\.png, which is not there"):
        read_data(data_yaml(source, train="list.txt"))


# --- the view


def test_a_view_has_the_images_and_labels_of_its_source(source: Path, view: Path) -> None:
    root = source.resolve()
    train = {f"{root}/images/train/{index}.png": [list(box(index))] for index in range(4)}
    train[f"{root}/images/train/more/0.png"] = [list(box(4)), list(box(5))]
    found = labels_of(view, "train")
    assert found.keys() == train.keys()
    for path, boxes in train.items():
        assert found[path] == [pytest.approx(values, abs=1e-4) for values in boxes]
    background = f"{root}/images/val/1 of 2.png"
    assert labels_of(view, "val")[background] == []


def test_a_view_says_what_its_source_says(view: Path) -> None:
    content = yaml.safe_load(view.read_text())
    assert content["names"] == {0: "cat", 1: "dog"}
    assert content["path"] == str(view.parent)
    assert "test" not in content
    assert [len((view.parent / content[split]).read_text().splitlines()) for split in ("train", "val")] == [5, 2]


def test_images_of_one_name_in_two_folders_stay_two(source: Path, view: Path) -> None:
    links = [view.parent / line for line in (view.parent / "train.txt").read_text().splitlines()]
    assert len({link.name for link in links}) == 5
    twins = {link.resolve().relative_to(source.resolve()) for link in links if link.name.endswith("_0.png")}
    assert {str(twin) for twin in twins} == {"images/train/0.png", "images/train/more/0.png"}


def test_labels_beside_their_images_are_found(tmp_path: Path) -> None:
    """Without a folder called images, Ultralytics looks for labels next to each image."""
    root = tmp_path / "flat"
    for split in ("train", "val"):
        picture(root / split / "0.png", (9, 9, 9))
        (root / split / "0.txt").write_text("1 0.5 0.5 0.25 0.25\n")
    view = make_view(read_data(data_yaml(root, train="train", val="val")), tmp_path / "view")
    assert list(labels_of(view, "train").values()) == [[[1, 0.5, 0.5, 0.25, 0.25]]]


def damage(path: Path) -> None:
    """Bytes after the end of a JPEG: harmless, common, and what Ultralytics repairs by writing the file anew."""
    path.write_bytes(path.read_bytes() + b"\0\0")


def test_the_source_may_be_read_only_and_is_not_written_to(source: Path, tmp_path: Path) -> None:
    damage(picture(source / "images" / "train" / "odd.jpg", (70, 0, 0), [box(0)]))
    folders = [source, *(path for path in source.rglob("*") if path.is_dir())]
    for path in source.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    source.chmod(0o555)
    before = snapshot(source)
    try:
        view = make_view(read_data(source / "data.yaml"), tmp_path / "view")
        calibration_images(view, image_size=SIZE, count=9, seed=0)
        sample_batches(view, image_size=SIZE, count=1, batch=2, seed=0)
        assert len(labels_of(view, "train")) == 6
        assert snapshot(source) == before
    finally:
        for folder in folders:  # or pytest could not remove them
            folder.chmod(0o755)


def test_a_finished_view_is_left_as_it_is(source: Path, view: Path) -> None:
    before = snapshot(view.parent)
    assert make_view(read_data(source / "data.yaml"), view.parent) == view
    assert snapshot(view.parent) == before


def test_a_view_that_was_cut_off_is_finished(source: Path, tmp_path: Path) -> None:
    damage(picture(source / "images" / "train" / "odd.jpg", (70, 0, 0), [box(0)]))
    data = read_data(source / "data.yaml")
    view = make_view(data, tmp_path / "view")
    before = labels_of(view, "train")
    view.unlink()
    assert make_view(data, tmp_path / "view") == view
    assert labels_of(view, "train") == before


def test_a_split_without_any_usable_image_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / "images" / split / "0.png", (9, 9, 9), [box(0)])
    (tmp_path / "images" / "train" / "0.png").write_bytes(b"no image")
    data: DataSet = read_data(data_yaml(tmp_path))
    with pytest.raises(UserError, match=r"data: .*data\.yaml: train"):
        make_view(data, tmp_path / "view")


# --- what is drawn from it


def test_calibration_images_are_rgb_pictures_of_the_training_split(view: Path) -> None:
    images = calibration_images(view, image_size=SIZE, count=5, seed=0)
    assert {image.shape for image in images} == {(1, 3, SIZE, SIZE)}
    assert {image.dtype for image in images} == {np.dtype(np.float32)}
    assert sorted(reds(images)) == TRAIN_REDS  # all of them, each once, none green: red is the first channel


def test_calibration_images_have_the_size_asked_for(view: Path) -> None:
    [image] = calibration_images(view, image_size=96, count=1, seed=0)
    assert image.shape == (1, 3, 96, 96)
    assert image.min() >= 0
    assert image.max() <= 1


def test_calibration_images_are_drawn_by_the_seed(view: Path) -> None:
    def drawn(seed: int, count: int) -> list[int]:
        return reds(calibration_images(view, image_size=SIZE, count=count, seed=seed))

    assert drawn(0, 3) == drawn(0, 3)
    assert len(set(drawn(0, 3))) == 3
    assert len({tuple(drawn(seed, 3)) for seed in range(5)}) > 1
    assert len(drawn(0, 100)) == 5  # no more than there are


@pytest.mark.parametrize(
    ("count", "batch", "sizes"), [(1, 2, [2]), (2, 2, [2, 2]), (9, 2, [2, 2, 1]), (1, 9, [5])]
)  # fmt: skip
def test_sample_batches(view: Path, count: int, batch: int, sizes: list[int]) -> None:
    batches = sample_batches(view, image_size=SIZE, count=count, batch=batch, seed=0)
    assert [tuple(content["img"].shape) for content in batches] == [(size, 3, SIZE, SIZE) for size in sizes]
    shades = reds([image[None].numpy() for content in batches for image in content["img"]])
    assert len(set(shades)) == sum(sizes)
    assert set(shades) <= set(TRAIN_REDS)


def test_sample_batches_bring_their_boxes(view: Path) -> None:
    [content] = sample_batches(view, image_size=SIZE, count=1, batch=5, seed=0)
    shades = reds([image[None].numpy() for image in content["img"]])
    widths = {red: [0.1 * (n + 1)] for n, red in enumerate(TRAIN_REDS[:-1])} | {TRAIN_REDS[-1]: [0.5, 0.6]}
    for index, red in enumerate(shades):
        mine = content["bboxes"][content["batch_idx"] == index]
        assert mine[:, 2].tolist() == pytest.approx(widths[red], abs=1e-3)


def test_a_study_goes_on_elsewhere_with_the_same_data_only(tmp_path: Path) -> None:
    """Its folder has the digest of the data that it began with; the view is made anew on each machine."""
    from search.prepare import _view
    from tests.studies import study

    roots = {name: tmp_path / name for name in ("here", "copy", "other")}
    for name, root in roots.items():
        for split in ("train", "val"):
            boxes = [(1 if name == "other" else 0, 0.5, 0.5, 0.2, 0.2)]
            picture(root / "images" / split / "a.png", (9, 9, 9), boxes)
    files = {name: data_yaml(root) for name, root in roots.items()}
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    digest = _view(study(data=str(files["here"])), first)[1]
    assert _view(study(data=str(files["here"])), first)[1] == digest
    (second / "data.json").write_bytes((first / "data.json").read_bytes())  # as it comes from the study's URL
    with pytest.raises(UserError, match="is not the data that this study began with"):
        _view(study(data=str(files["other"])), second)
    assert _view(study(data=str(files["copy"])), second)[1] == digest
