"""Accuracy of a file: what Ultralytics measures of the model itself, and no trace left in the process."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.nms import non_max_suppression

from search.data import make_view, read_data
from search.digits import make_digits
from search.errors import MeasurementError
from search.measure.accuracy import measure_accuracy
from search.runtimes.session import Runtime, Session
from search.runtimes.table import open_session
from search.stages.export import export_onnx
from search.tasks.accuracy import DetectionAccuracy
from search.tasks.resample import drawn, unpacked
from spaces.recipe import Export
from tests.tiny import CLASSES, SIZE, answers, branches, files_below, sha256

COUNTS = {"train": 1, "val": 12, "test": 5}


@pytest.fixture(scope="module")
def detector(model: nn.Module) -> nn.Module:
    """A model whose boxes are small enough for several to fit into a picture."""
    small = deepcopy(model)
    for branch in branches(small)[0]:
        assert branch.bias is not None
        branch.bias.data -= torch.arange(16).repeat(4)
    return small


@pytest.fixture(scope="module")
def labelled(detector: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of digits whose labels are some of the detector's own answers, moved a little.

    So its accuracy is neither nothing nor all, without any training. Of the test split it found fewer.
    """
    folder = tmp_path_factory.mktemp("accuracy")
    root = make_digits(folder / "digits", image_size=SIZE, counts=COUNTS).parent
    rng = np.random.default_rng(0)
    for split, step in (("val", 2), ("test", 5)):
        for path in sorted((root / "images" / split).iterdir()):
            picture = np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
            (found, *_) = non_max_suppression(torch.from_numpy(answers(detector, [picture])), 0.001, 0.7)
            lines = [line(box, rng) for box in np.asarray(found)[:20:step]]
            (root / "labels" / split / f"{path.stem}.txt").write_text("".join(lines))
    return make_view(read_data(root / "data.yaml"), folder / "view")


def line(detection: np.ndarray, rng: np.random.Generator) -> str:
    """A label file's line for (x0, y0, x1, y1, score, class) in pixels, with each side moved by up to 1 px."""
    x0, y0, x1, y1 = np.clip(detection[:4] + rng.uniform(-1, 1, 4), 0, SIZE)
    numbers = np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]) / SIZE
    return f"{int(detection[5])} " + " ".join(f"{number:.6f}" for number in numbers) + "\n"


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "plain"])
def file(request: pytest.FixtureRequest, detector: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "model.onnx"
    return export_onnx(detector, Export(fast_dfl=request.param), image_size=SIZE, path=path)


def by_pytorch(model: nn.Module, data: Path, split: str, folder: Path) -> dict[str, float]:
    """What Ultralytics measures of the module."""
    args: dict[str, Any] = {"data": str(data), "split": split, "imgsz": SIZE, "rect": False, "batch": 4}
    args |= {"task": "detect", "mode": "val", "device": "cpu", "workers": 0, "plots": False}
    validator = DetectionValidator(save_dir=folder, args=args)
    validator(model=deepcopy(model))
    box = validator.metrics.box
    return {"map50_95": box.map, "map50": box.map50, "precision": box.mp, "recall": box.mr}


def numbers(accuracy: DetectionAccuracy) -> dict[str, float]:
    return {name: getattr(accuracy, name) for name in ("map50_95", "map50", "precision", "recall")}


def boxes(file: Path, data: Path, *, split: str = "val") -> DetectionAccuracy:
    found = measure_accuracy(file, data, split=split, image_size=SIZE)
    assert isinstance(found, DetectionAccuracy)
    return found


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_file_is_as_accurate_as_the_model(
    detector: nn.Module, file: Path, labelled: Path, split: str, tmp_path: Path
) -> None:
    found = boxes(file, labelled, split=split)
    expected = by_pytorch(detector, labelled, split, tmp_path)
    assert 0.05 < expected["map50_95"] < 0.95
    assert numbers(found) == pytest.approx(expected, abs=0.005)
    assert (found.split, found.images) == (split, COUNTS[split])
    assert 0 <= found.map50_95 <= found.map50 <= 1


def test_the_accuracy_says_how_far_it_depends_on_the_images(file: Path, labelled: Path) -> None:
    """Its value on a draw of the images is what Ultralytics finds in a data set with as many copies of each."""
    found = boxes(file, labelled)
    assert found.low is not None and found.high is not None
    resampled = unpacked(found.resampled)
    assert 0 < found.low < found.map50_95 < found.high < 1
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.std(resampled) * np.sqrt(12 / 11), rel=1e-3)
    manifest = yaml.safe_load(labelled.read_text(encoding="utf-8"))
    pictures = (labelled.parent / manifest["val"]).read_text(encoding="utf-8").splitlines()
    draw = drawn(12)[0]
    folder = labelled.parent / "drawn"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index, count in enumerate(draw):
        picture = labelled.parent / pictures[index]
        label = Path(str(picture).replace("/images/", "/labels/")).with_suffix(".txt")
        for copy in range(count):
            shutil.copy(picture, folder / "images" / f"{index}-{copy}{picture.suffix}")
            shutil.copy(label, folder / "labels" / f"{index}-{copy}.txt")
    view = folder / "data.yaml"
    view.write_text(yaml.safe_dump({**manifest, "val": str(folder / "images")}), encoding="utf-8")
    assert boxes(file, view).map50_95 == pytest.approx(resampled[0], abs=0.002)


def test_the_splits_differ_and_val_is_the_default(file: Path, labelled: Path) -> None:
    val, test = (boxes(file, labelled, split=split) for split in ("val", "test"))
    assert abs(val.map50_95 - test.map50_95) > 0.02
    assert boxes(file, labelled) == val


def test_accuracy_follows_the_labels(file: Path, labelled: Path, tmp_path: Path) -> None:
    """With every label's class changed to the next, next to nothing is found."""
    content = yaml.safe_load(labelled.read_text())
    shutil.copytree(labelled.parent, tmp_path / "view", symlinks=False)
    for path in (tmp_path / "view").rglob("*.txt"):
        if path.parent.name == "val":
            rows = [row.split() for row in path.read_text().splitlines()]
            path.write_text("".join(f"{(int(label) + 1) % CLASSES} {' '.join(box)}\n" for label, *box in rows))
        else:
            path.write_text(path.read_text().replace(str(labelled.parent), str(tmp_path / "view")))
    for path in (tmp_path / "view").rglob("*.cache"):
        path.unlink()
    (tmp_path / "view" / "data.yaml").write_text(yaml.safe_dump({**content, "path": str(tmp_path / "view")}))
    wrong = boxes(file, tmp_path / "view" / "data.yaml")
    assert wrong.map50_95 < 0.5 * boxes(file, labelled).map50_95


def test_the_session_that_is_timed_is_the_one_that_is_judged(
    file: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics' own backend of the format gives the same accuracy, and is not what ran."""
    found = boxes(file, labelled)
    monkeypatch.setattr("search.measure.accuracy._run_by", lambda runtime: nullcontext())
    assert boxes(file, labelled).map50_95 == pytest.approx(found.map50_95, abs=1e-9)
    monkeypatch.undo()
    opened: list[Runtime] = []

    def open_recorded(path: Path, runtime: Runtime) -> Session:
        opened.append(runtime)
        return open_session(path, runtime)

    monkeypatch.setattr("search.measure.far.open_session", open_recorded)
    measure_accuracy(file, labelled, image_size=SIZE, runtime=Runtime(threads=2))
    assert opened == [Runtime(threads=2)]


def test_a_file_that_cannot_be_read_leaves_the_process_as_it_was(labelled: Path, tmp_path: Path) -> None:
    before, threads = AutoBackend._BACKEND_MAP, torch.get_num_threads()
    (tmp_path / "model.onnx").write_bytes(b"no protobuf")
    with pytest.raises(MeasurementError, match="model"):
        measure_accuracy(tmp_path / "model.onnx", labelled, image_size=SIZE)
    assert AutoBackend._BACKEND_MAP is before
    assert torch.get_num_threads() == threads


def test_nothing_is_written(file: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digest, files = sha256(file), files_below(labelled.parent)
    first = measure_accuracy(file, labelled, image_size=SIZE)
    assert measure_accuracy(file, labelled, image_size=SIZE) == first
    assert sha256(file) == digest
    assert files_below(labelled.parent) == files
    assert not list(tmp_path.iterdir())
