"""How a study reads on the cluster, and that its data set is the same there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import UserError
from cluster.inputs import read_inputs
from cluster.package import Source
from search.data import read_data

STUDY = {"name": "cats", "model": "yolov8n.yaml", "data": "/there/data.yaml", "image_size": 64}


def write(file: Path, **changes: Any) -> Path:
    content = {key: value for key, value in {**STUDY, **changes}.items() if value is not None}
    file.write_text(yaml.safe_dump(content))
    return file


def unpack(files: dict[str, Source] | Any, folder: Path) -> Path:
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes() if isinstance(source, Path) else source)
    return folder


def touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(file))


def test_what_is_here_is_shipped_and_what_is_there_is_left(tmp_path: Path) -> None:
    for name in ("w/best.pt", "space.yaml", "old/study.yaml", "old/records.jsonl", "old/artifacts/a/model.onnx"):
        touch(tmp_path / name)
    found = read_inputs(
        write(
            tmp_path / "study.yaml",
            model=str(tmp_path / "w/best.pt"),
            space=str(tmp_path / "space.yaml"),
            warm_start=[str(tmp_path / "old"), "/there/older"],
        )
    )
    assert found.shipped == {
        "model": "model/best.pt",
        "space": "space/space.yaml",
        "warm_start": ["warm_start/0", "/there/older"],
    }
    expected = {"model/best.pt", "space/space.yaml", "warm_start/0/study.yaml", "warm_start/0/records.jsonl"}
    assert set(found.files) == expected
    note = json.loads(found.packed()["inputs/shipped.json"])  # type: ignore[arg-type]
    assert note["study"]["data"] == "/there/data.yaml" and set(note["digests"]) == expected


def test_names_that_are_no_files_stay(tmp_path: Path) -> None:
    found = read_inputs(write(tmp_path / "study.yaml", space="detect-cpu", model="~/w/best.pt"), data="~/d.yaml")
    assert (found.shipped, found.files) == ({}, {})
    assert found.study == {**STUDY, "space": "detect-cpu", "model": "~/w/best.pt", "data": "~/d.yaml"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "runs/best.pt"}, "model: there is no file runs/best.pt here; correct it, or give its absolute path"),
        ({"space": "spaces/x.yaml"}, "space: there is no file spaces/x.yaml here"),
        ({"data": "data.yaml"}, "data: data.yaml is a path on this machine; ship it with --with-data (up to 100 MB)"),
        ({"warm_start": ["results/x"]}, "warm_start: results/x is no study folder here"),
        ({"resources": {"stage_cache": "cache"}}, "resources.stage_cache: cache is no absolute path"),
        ({"resources": 3}, "resources is no mapping"),
        ({"name": "../x"}, "name: letters, digits"),
        ({"name": None}, "name is missing"),
        ({"image_size": None}, "image_size is missing"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        read_inputs(write(tmp_path / "study.yaml", **changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [None, "a: [", "text"])
def test_a_study_file_that_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(UserError, match="study"):
        read_inputs(tmp_path / "study.yaml")


def test_the_size_of_the_data_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d/train/a/0.jpg", "d/train/b/0.jpg", "d/val/a/0.jpg"):
        touch(Path(name))
        Path(name).write_bytes(bytes(1_000_000))
    with pytest.raises(UserError, match=r"data: d is a path on this machine, 3\.0 MB; ship it with --with-data"):
        read_inputs(write(tmp_path / "study.yaml", data="d"))


DETECTION: dict[str, tuple[dict[str, Any], str]] = {
    "folders": ({"path": "set", "train": "images/train", "val": "images/val", "test": "images/test"}, "set/images"),
    "absolute": ({"path": "TMP/set", "train": "images/train", "val": "images/val"}, "set/images"),
    "beside": ({"train": "set/train/images", "val": "set/val/images"}, "set"),
    "above": ({"path": "here", "train": "../set/images/train", "val": "../set/images/val"}, "set/images"),
    "lists": ({"path": "set", "train": ["images/train", "images/test"], "val": "val.txt"}, "set/images"),
}


@pytest.mark.parametrize("layout", DETECTION)
def test_a_detection_set_is_the_same_there(tmp_path: Path, layout: str) -> None:
    from ultralytics.data.utils import img2label_paths

    content, images = DETECTION[layout]
    content = json.loads(json.dumps(content).replace("TMP", str(tmp_path))) | {"names": ["cat", "dog"]}
    for split in ("train", "val", "test"):
        place = tmp_path / images / split / ("images" if layout == "beside" else "")
        for name in ("b.jpg", "a.PNG", "deep/a.jpg", "notes.md"):
            touch(place / name)
        for image in ("b.jpg", "deep/a.jpg"):  # one has none
            touch(Path(img2label_paths([str(place / image)])[0]))
    (tmp_path / "here").mkdir()
    (tmp_path / "set" / "val.txt").write_text("./images/val/b.jpg\nimages/val/a.PNG\n")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**content, "download": "https://example.org/x.zip"}))
    study = write(tmp_path / "study.yaml", data=str(tmp_path / "data.yaml"))
    found = read_inputs(study, with_data=True)
    assert found.shipped == {"data": "data/data.yaml"}
    here = read_data(tmp_path / "data.yaml")
    there = read_data(unpack(found.files, tmp_path / "there") / "data" / "data.yaml")
    assert there.names == here.names and set(there.images) == set(here.images)
    for split in here.images:
        assert [file.read_text() for file in there.images[split]] == [f.read_text() for f in here.images[split]]
        for new, old in zip(there.images[split], here.images[split], strict=True):
            labels = [Path(img2label_paths([str(image)])[0]) for image in (new, old)]
            known = [label.read_text() if label.exists() else None for label in labels]
            assert known[0] == known[1] and (known[1] is None) == (old.name == "a.PNG")
    assert "example.org" not in (tmp_path / "there" / "data" / "data.yaml").read_text()


def test_a_classified_set_is_the_same_there(tmp_path: Path) -> None:
    for name in ("train/a/0.jpg", "train/b/1.png", "val/a/2.jpg", "val/b/deep/3.jpg", "train/a/x.md", "other/c/0.jpg"):
        touch(tmp_path / "d" / name)
    found = read_inputs(write(tmp_path / "study.yaml", data=str(tmp_path / "d")), with_data=True)
    assert found.shipped == {"data": "data"}
    here, there = read_data(tmp_path / "d"), read_data(unpack(found.files, tmp_path / "there") / "data")
    assert there.names == here.names
    for split in here.images:
        assert [f.relative_to(there.source) for f in there.images[split]] == [
            f.relative_to(here.source) for f in here.images[split]
        ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: [", "is no valid YAML"),
        ("text", "is no Ultralytics data file"),
        ("{train: none, val: none, names: [a]}", "data.yaml: train: there is no"),
    ],
)
def test_a_data_set_that_cannot_be_shipped(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        read_inputs(write(tmp_path / "study.yaml", data=str(tmp_path / "data.yaml")), with_data=True)
