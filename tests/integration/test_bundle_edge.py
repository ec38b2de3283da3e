"""A bundle in an environment that has onnxruntime, numpy and Pillow only: the answers are those of Ultralytics."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics import YOLO

from tests.bundles import bundle_of, picture
from tests.tiny import SIZE, tiny_model
from tests.tiny_classifier import SIDE, tiny_classifier

ROOT = Path(__file__).resolve().parents[2]
PIXELS, SCORE = 0.05, 1e-3  # how far boxes and scores may be from Ultralytics'
NEEDED = {"onnxruntime", "numpy", "pillow", "flatbuffers", "packaging", "protobuf"}  # the last three are onnxruntime's
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def python(detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with what the bundle asks for, in the tested versions, and nothing else."""
    folder = tmp_path_factory.mktemp("edge")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    wanted = ["--requirement", detector / "requirements.txt", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*pip, "install", "--quiet", *wanted], check=True)
    done = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, text=True, check=True)
    assert {package["name"].lower() for package in json.loads(done.stdout)} <= NEEDED | {"pip", "setuptools"}
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(tiny_model(), tmp_path_factory.mktemp("detector"), size=SIZE)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(tiny_classifier(), tmp_path_factory.mktemp("classifier"), size=SIDE, task="classify")


@pytest.fixture
def run(python: Path, tmp_path: Path) -> Run:
    """Runs a script of a bundle, in another folder, with nothing of this project in sight and no other programs."""

    def call(script: Path, *arguments: object, path: Path = tmp_path / "no", interpreter: Path = python) -> Any:
        command = [str(interpreter), str(script), *map(str, arguments)]
        environment = {"PATH": str(path), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=120
        )

    return call


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def as_rows(boxes: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[*box["box"], box["score"], box["class"]] for box in boxes], dtype=np.float64).reshape(-1, 6)


def predicted(bundle: Path, source: Any, size: int, task: str) -> Any:
    """Ultralytics' own answer of the bundle's model."""
    model = YOLO(bundle / "model.onnx", task=task)
    [result] = model.predict(source, imgsz=size, conf=0.25, iou=0.7, max_det=300, verbose=False, device="cpu")
    return result


def assert_same(found: list[dict[str, Any]], expected: np.ndarray) -> None:
    rows = as_rows(found)
    assert rows.shape == expected.shape
    assert len(rows) > 5
    np.testing.assert_array_equal(rows[:, 5], expected[:, 5])
    np.testing.assert_allclose(rows[:, :4], expected[:, :4], atol=PIXELS)
    np.testing.assert_allclose(rows[:, 4], expected[:, 4], atol=SCORE)


def test_an_images_boxes_are_those_of_ultralytics(run: Run, detector: Path, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "one.png")
    [told] = lines(run(detector / "run.py", tmp_path / "one.png", "--json"))
    assert (told["source"], told["width"], told["height"]) == (str(tmp_path / "one.png"), 200, 150)
    assert_same(told["boxes"], predicted(detector, tmp_path / "one.png", SIZE, "detect").boxes.data.numpy())
    assert {box["label"] for box in told["boxes"]} == {str(box["class"]) for box in told["boxes"]}


def test_a_photograph_is_turned_as_its_camera_says(run: Run, detector: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    picture(2).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    [told] = lines(run(detector / "run.py", tmp_path / "turned.jpg", "--json"))
    assert (told["width"], told["height"]) == (150, 200)
    assert_same(told["boxes"], predicted(detector, tmp_path / "turned.jpg", SIZE, "detect").boxes.data.numpy())


def test_a_classifiers_classes_are_those_of_ultralytics(run: Run, classifier: Path, tmp_path: Path) -> None:
    picture(3).save(tmp_path / "one.png")
    [told] = lines(run(classifier / "run.py", tmp_path / "one.png", "--json", "--out", tmp_path / "out"))
    expected = predicted(classifier, tmp_path / "one.png", SIDE, "classify").probs
    assert [row["class"] for row in told["classes"]] == expected.top5
    np.testing.assert_allclose([row["score"] for row in told["classes"]], expected.top5conf.numpy(), atol=SCORE)
    assert (tmp_path / "out" / "one.png").is_file()


def test_a_folder_with_an_animation_gives_a_line_and_a_picture_each(run: Run, detector: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    shown = [picture(seed) for seed in (4, 5, 6)]
    shown[0].save(source / "a.png")
    (source / "notes.txt").write_text("no picture")
    webp: dict[str, Any] = {"lossless": True, "exact": True}
    shown[1].save(source / "sub" / "b.webp", save_all=True, append_images=shown[2:], **webp)
    told = lines(run(detector / "run.py", source, "--json", "--out", out))
    assert [(Path(one["source"]).name, one.get("frame")) for one in told] == [
        ("a.png", None), ("b.webp", 0), ("b.webp", 1)
    ]  # fmt: skip
    for one, image in zip(told, shown, strict=True):
        pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        assert_same(one["boxes"], predicted(detector, pixels, SIZE, "detect").boxes.data.numpy())
    assert [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()] == told
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert written == ["a.png", "answers.jsonl", "sub/b.webp/000000.jpg", "sub/b.webp/000001.jpg"]
    before, after = np.asarray(shown[0]).astype(int), np.asarray(Image.open(out / "a.png")).astype(int)
    left, top, right, bottom = (round(edge) for edge in told[0]["boxes"][0]["box"])
    edge = np.abs(after - before)[(top + bottom) // 2, [min(left, 199), min(right, 199)]]
    assert before.shape == after.shape and edge.max() > 0  # the best box is drawn


def test_motion_jpeg_is_read_frame_by_frame(run: Run, detector: Path, tmp_path: Path) -> None:
    stream = b""
    for seed in (7, 8):
        picture(seed).save(tmp_path / f"{seed}.jpg", quality=95)
        stream += (tmp_path / f"{seed}.jpg").read_bytes()
    (tmp_path / "film.mjpeg").write_bytes(stream)
    film = lines(run(detector / "run.py", tmp_path / "film.mjpeg", "--json"))
    alone = [lines(run(detector / "run.py", tmp_path / f"{seed}.jpg", "--json"))[0] for seed in (7, 8)]
    assert [one["boxes"] for one in film] == [one["boxes"] for one in alone]
    assert film[0]["boxes"] != film[1]["boxes"]


def test_a_video_is_read_by_ffmpeg_or_opencv_or_it_is_said_what_is_missing(
    run: Run, detector: Path, tmp_path: Path
) -> None:
    film = tmp_path / "film.avi"
    writer: Any = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 5, (200, 150))
    for seed in (7, 8):
        writer.write(np.ascontiguousarray(np.asarray(picture(seed))[..., ::-1]))
    writer.release()
    refused = run(detector / "run.py", film)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        refused.stderr.startswith(f"error: {film}: to read videos, install ffmpeg") and refused.stderr.count("\n") == 1
    )

    by_opencv = lines(run(detector / "run.py", film, "--json", interpreter=Path(sys.executable)))
    video: Any = cv2.VideoCapture(str(film))
    expected = [predicted(detector, video.read()[1], SIZE, "detect").boxes.data.numpy() for _ in by_opencv]
    assert len(expected) == 2
    for one, boxes in zip(by_opencv, expected, strict=True):
        assert_same(one["boxes"], boxes)

    programs = tmp_path / "programs"  # with a stand-in for ffmpeg, which writes what ffmpeg writes
    programs.mkdir()
    for seed in (7, 8):
        picture(seed).save(programs / f"{seed}.ppm")
    stand_in = programs / "ffmpeg"
    stand_in.write_text(f"#!/bin/sh\n/bin/cat {programs}/7.ppm {programs}/8.ppm\n")
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    told = lines(run(detector / "run.py", film, "--json", path=programs))
    assert [one["frame"] for one in told] == [0, 1]
    for one, seed in zip(told, (7, 8), strict=True):
        pixels = np.ascontiguousarray(np.asarray(picture(seed))[..., ::-1])
        assert_same(one["boxes"], predicted(detector, pixels, SIZE, "detect").boxes.data.numpy())
    stand_in.write_text("#!/bin/sh\necho 'film.avi: Invalid data' >&2\nexit 1\n")
    failed = run(detector / "run.py", film, path=programs)
    assert (failed.returncode, failed.stderr) == (2, f"error: ffmpeg cannot read {film}: film.avi: Invalid data\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.png", "there is no image, folder or video at TMP/absent.png; correct the path"),
        ("broken.png", "TMP/broken.png cannot be read: "),
        ("short.jpg", "TMP/short.jpg cannot be read: "),
        ("empty.mjpeg", "TMP/empty.mjpeg cannot be read: "),
        ("empty", "TMP/empty has no images and no videos; known endings are "),
    ],
)
def test_an_error_is_one_line(run: Run, detector: Path, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    (tmp_path / "empty.mjpeg").touch()
    picture(1).save(tmp_path / "whole.jpg")
    (tmp_path / "short.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    (tmp_path / "empty").mkdir()
    done = run(detector / "run.py", tmp_path / name, "--json")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: " + message.replace("TMP", str(tmp_path)))


def test_pictures_are_not_written_over(run: Run, detector: Path, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "one.png")
    before = (tmp_path / "one.png").read_bytes()
    done = run(detector / "run.py", tmp_path / "one.png", "--out", ".")
    assert done.returncode == 2 and "would be written over; give another" in done.stderr
    assert (tmp_path / "one.png").read_bytes() == before


def test_without_the_packages_it_says_how_to_get_them(detector: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-S", str(detector / "run.py"), "x.png"]  # -S: no installed packages
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"python -m pip install -r {detector / 'requirements.txt'}" in done.stderr


def test_the_benchmark_times_the_model_and_says_whether_it_answers_as_expected(
    run: Run, detector: Path, tmp_path: Path
) -> None:
    done = run(detector / "benchmark.py", "--runs", 20, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["answers_as_expected"] is True and told["pixels_apart"] < 0.01
    assert min(told["model_ms_p50"], told["whole_ms_p50"]) > 0
    assert 0 < told["model_cpu_ms_p50"] < told["whole_cpu_ms_p50"]  # other work adds nothing to these
    assert told["card_ms_p50"] == 4.0
    about = detector / "bundle.json"
    before = about.read_text()
    try:
        content = json.loads(before)
        content["sample"]["answers"][0][0] += 5
        about.write_text(json.dumps(content))
        done = run(detector / "benchmark.py", "--runs", 2, "--json")
    finally:
        about.write_text(before)
    assert (done.returncode, json.loads(done.stdout)["answers_as_expected"]) == (1, False)
