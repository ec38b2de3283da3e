"""Folders of classes: what is read from them, what is refused, and the view that a study makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from search.data import calibration_images, make_view, read_data, sample_batches
from search.errors import UserError
from search.study import StudyConfig, check_files
from search.tasks.classify import CLASSIFY, mixed_up
from search.tasks.detect import DETECT
from search.tasks.table import check_recipe, check_space, kind_of_view
from spaces.parse import parse_space
from spaces.recipe import ChannelPrune, Depthwise, FeatureDistill, Finetune, Recipe

SHADES = {"ant": [10, 40, 70], "bee": [110, 140], "cow": [190, 220, 250]}  # each picture is one shade of red
SIZE = 32


def picture(path: Path, red: int, size: tuple[int, int] = (SIZE, SIZE)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 0, 0)).save(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three classes; one picture lies deeper, and val has no cow."""
    root = tmp_path / "my data"
    for name, shades in SHADES.items():
        for index, red in enumerate(shades[:-1]):
            picture(root / "train" / name / f"{index}.png", red)
        picture(root / "train" / name / "more" / "0.png", shades[-1])
    picture(root / "val" / "ant" / "0.png", 20)
    picture(root / "val" / "bee" / "0.PNG", 120)
    (root / "train" / "ant" / "notes.txt").write_text("no picture")
    (root / "train" / ".hidden").mkdir()
    return root


def reds(images: list[np.ndarray]) -> list[int]:
    """The shade of each picture, (1, 3, H, W); red must be the first channel."""
    assert all(image[0, 1:].max() == 0 for image in images)
    return [round(float(image[0, 0].mean()) * 255) for image in images]


def test_classes_are_the_folders_of_train(source: Path) -> None:
    data = read_data(source)
    assert (data.task, data.names, data.source) == ("classify", ("ant", "bee", "cow"), source.resolve())
    assert {split: len(images) for split, images in data.images.items()} == {"train": 8, "val": 2}
    assert [path.name for path in data.images["val"]] == ["0.png", "0.PNG"]
    picture(source / "test" / "cow" / "0.png", 200)
    assert len(read_data(source).images["test"]) == 1


def test_what_cannot_be_used_is_refused_with_a_reason(source: Path, tmp_path: Path) -> None:
    def refused(root: Path) -> str:
        with pytest.raises(UserError) as caught:
            read_data(root)
        return str(caught.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there is no folder" in refused(empty) and str(empty / "train") in refused(empty)
    (empty / "train" / "ant").mkdir(parents=True)
    assert "has 1 class folders in train" in refused(empty)
    (empty / "train" / "bee").mkdir()
    assert "train has no images; known endings are .bmp" in refused(empty)
    picture(empty / "train" / "bee" / "0.png", 1)
    assert "there is no folder" in refused(empty) and "val" in refused(empty)
    picture(empty / "val" / "bee" / "0.png", 1)
    assert "train has no images of class ant" in refused(empty)
    picture(source / "val" / "dog" / "0.png", 1)
    assert "val has a class dog that train does not have" in refused(source)


@pytest.mark.parametrize("link", ["train/ant/9.png", "val/bee/away", "train/cow/up.png"])
def test_no_link_leads_out_of_the_folder(source: Path, tmp_path: Path, link: str) -> None:
    outside = picture(tmp_path / "secret" / "0.png", 9)
    target = {"away": outside.parent, "up.png": Path("../../../secret/0.png")}.get(Path(link).name, outside)
    (source / link).symlink_to(target)
    if Path(link).name == "away":  # a folder behind a link is not looked into
        assert len(read_data(source).images["val"]) == 2
        return
    with pytest.raises(UserError, match=r"outside .*only what is inside is read"):
        read_data(source)


def test_a_class_folder_that_is_a_link_out_is_refused(source: Path, tmp_path: Path) -> None:
    picture(tmp_path / "secret" / "0.png", 9)
    (source / "val" / "cow").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="outside"):
        read_data(source)


def test_the_view_has_links_and_leaves_the_source_alone(source: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    view = make_view(read_data(source), tmp_path / "study" / "data")
    content = yaml.safe_load(view.read_text())
    assert (content["task"], content["train"], content["val"]) == ("classify", "train", "val")
    assert content["names"] == {0: "ant", 1: "bee", 2: "cow"}
    assert kind_of_view(view) is CLASSIFY
    links = [path for path in (view.parent / "train").rglob("*") if path.is_symlink()]
    assert sorted(link.resolve() for link in links) == sorted(p.resolve() for p in (source / "train").rglob("*.png"))
    assert all(link.parent.name == link.resolve().relative_to(source.resolve()).parts[1] for link in links)
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    stamps = {path: path.lstat().st_mtime_ns for path in view.parent.rglob("*")}
    assert make_view(read_data(source), view.parent) == view
    assert {path: path.lstat().st_mtime_ns for path in view.parent.rglob("*")} == stamps


def test_a_view_of_pictures_that_cannot_be_read_is_refused(source: Path, tmp_path: Path) -> None:
    for path in (source / "val").rglob("*.*"):
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="val: none of the images can be read"):
        make_view(read_data(source), tmp_path / "view")


def test_calibration_images_are_of_the_training_split_by_the_seed(source: Path, tmp_path: Path) -> None:
    view = make_view(read_data(source), tmp_path / "view")
    images = calibration_images(view, image_size=SIZE, count=8, seed=0)
    assert sorted(reds(images)) == sorted(shade for shades in SHADES.values() for shade in shades)
    assert {(image.shape, image.dtype) for image in images} == {((1, 3, SIZE, SIZE), np.dtype(np.float32))}

    def drawn(seed: int) -> list[int]:
        return reds(calibration_images(view, image_size=SIZE, count=3, seed=seed))

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


def test_pictures_are_resized_by_the_shorter_side_and_cropped(source: Path, tmp_path: Path) -> None:
    wide = Image.new("RGB", (96, 32), (255, 0, 0))
    wide.paste((0, 0, 255), (32, 0, 64, 32))  # the middle third
    for path in (source / "train").rglob("*.png"):
        wide.save(path)
    view = make_view(read_data(source), tmp_path / "view")
    [image] = calibration_images(view, image_size=SIZE, count=1, seed=0)
    assert image[0, 2].min() == 1 and image[0, 0].max() == 0  # blue all over


def test_batches_bring_their_classes(source: Path, tmp_path: Path) -> None:
    view = make_view(read_data(source), tmp_path / "view")
    batches = sample_batches(view, image_size=SIZE, count=9, batch=3, seed=0)
    assert [len(batch["img"]) for batch in batches] == [3, 3, 2]
    found: dict[int, set[int]] = {}
    for batch in batches:
        for one in CLASSIFY.singles(batch):
            assert one["img"].shape == (1, 3, SIZE, SIZE) and one["cls"].shape == (1,)
            found.setdefault(int(one["cls"]), set()).add(reds([one["img"].numpy()])[0])
    assert found == {number: set(shades) for number, shades in enumerate(SHADES.values())}


def test_classes_that_are_mixed_up_are_found() -> None:
    assert mixed_up({0: "ant", 1: "bee"}, ("ant", "bee")) == ""
    assert "class 0 is bee in the model and ant in the data" in mixed_up({0: "bee", 1: "ant"}, ("ant", "bee"))
    assert mixed_up({0: "tench", 1: "goldfish"}, ("n01440764", "n01443537")) == ""  # ImageNet's codes


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (Recipe(image_size=64, prune=ChannelPrune(ratio=0.5, where="neck")), "where=neck .* has no neck"),
        (Recipe(image_size=64, structure=Depthwise(where="head")), "no 3x3 convolution"),
        (
            Recipe(image_size=64, finetune=Finetune(epochs=1), distill=FeatureDistill()),
            "distill.kind=feature .*learns from the teacher's answers",
        ),
    ],
)
def test_recipes_without_sense_for_a_classifier_are_refused(recipe: Recipe, reason: str) -> None:
    check_recipe(recipe, DETECT)
    with pytest.raises(UserError, match=reason):
        check_recipe(recipe, CLASSIFY)


def test_spaces_that_could_draw_such_a_recipe_are_refused() -> None:
    content = {"structure": [{"kind": "none"}, {"kind": "se", "where": ["backbone", "neck"]}]}
    space = parse_space(content, name="mine", image_size=64)
    check_space(space, DETECT)
    with pytest.raises(UserError, match=r"space mine: structure\.se\.where=neck makes no sense for classification"):
        check_space(space, CLASSIFY)


def test_a_study_checks_its_space_against_its_data(source: Path) -> None:
    config = StudyConfig(name="mine", model="yolov8n-cls.yaml", data=source, image_size=64, space="classify")
    check_files(config)
    with pytest.raises(UserError, match=r"space detect-full: .*makes no sense for classification"):
        check_files(config.model_copy(update={"space": "detect-full"}))
