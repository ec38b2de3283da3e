"""From picture to answer: the answers of Ultralytics' own predictor, and times that add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper
from PIL import Image
from ultralytics import YOLO

from search.errors import MeasurementError, UserError
from search.measure.end_to_end import PAIRS, SESSIONS, measure_end_to_end, open_chain, summarise
from search.measure.pictures import CAMERA, camera_picture, pictures
from search.runtimes.session import Runtime
from search.stages.export import export_onnx
from spaces.recipe import Export
from tests.lively import lively_model
from tests.loops import save_loop
from tests.tiny import SIZE
from tests.tiny_classifier import SIDE, tiny_classifier

CPU = Runtime()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "model.onnx"
    return export_onnx(lively_model(), Export(), image_size=SIZE, path=path)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "model.onnx"
    return export_onnx(tiny_classifier(), Export(), image_size=SIDE, path=path)


def predicted(path: Path, task: str, size: int, image: NDArray[np.uint8]) -> Any:
    model = YOLO(path, task=task)
    [result] = model.predict(image, imgsz=size, conf=0.25, iou=0.7, max_det=300, verbose=False, device="cpu")
    return result


def test_a_detectors_boxes_are_those_of_ultralytics(detector: Path) -> None:
    image = camera_picture()[:500]
    expected = predicted(detector, "detect", SIZE, image).boxes.data.numpy()
    found = open_chain(detector, CPU).answer(image)
    assert len(expected) > 5
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.05)


def test_an_input_with_its_channels_last_gives_the_same_boxes(detector: Path, tmp_path: Path) -> None:
    """As LiteRT's files have it."""
    ends = [
        helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, SIZE, SIZE, 3]),
        helper.make_tensor_value_info("first", TensorProto.FLOAT, [1, 3, SIZE, SIZE]),
    ]
    front = helper.make_graph(
        [helper.make_node("Transpose", ["last"], ["first"], perm=[0, 3, 1, 2])], "f", ends[:1], ends[1:]
    )
    own = onnx.load(detector)
    first = helper.make_model(front, opset_imports=own.opset_import, ir_version=own.ir_version)
    onnx.save(compose.merge_models(first, own, io_map=[("first", "images")]), tmp_path / "last.onnx")
    image = camera_picture()[:500]
    found = open_chain(tmp_path / "last.onnx", CPU).answer(image)
    assert len(found) > 5
    np.testing.assert_allclose(found, open_chain(detector, CPU).answer(image), atol=1e-3)


def test_a_classifiers_classes_are_those_of_ultralytics(classifier: Path) -> None:
    image = camera_picture(1)
    expected = predicted(classifier, "classify", SIDE, image).probs
    found = open_chain(classifier, CPU).answer(image)
    assert found[:, 0].tolist() == expected.top5
    np.testing.assert_allclose(found[:, 1], expected.top5conf.numpy(), rtol=1e-3)


def test_the_times_are_of_the_parts_and_of_the_whole(detector: Path) -> None:
    images = [camera_picture(0), camera_picture(1)[:360, :640].copy()]
    found = measure_end_to_end(detector, detector, images, runtime=CPU)
    assert (found.task, found.images, found.clock) == ("detect", 2, "thread-cpu")
    parts = [found.before, found.model, found.after]
    assert all(0 < p50 <= p95 for p50, p95 in [*parts, found.whole])
    assert found.whole[0] >= max(p50 for p50, _ in parts)
    assert found.ratio[1] <= found.ratio[0] <= found.ratio[2]
    assert found.ratio[0] == pytest.approx(1, abs=0.3)
    counts = [len(open_chain(detector, CPU).answer(image)) for image in images]
    assert SESSIONS * PAIRS % 2 == 0  # both pictures as often
    assert found.boxes == found.against_boxes == pytest.approx(np.mean(counts))


def test_the_ratio_is_of_the_whole_by_the_clock_that_counts() -> None:
    """Two sessions: the wall says that ours takes twice as long, CPU time that it takes half."""
    wall = np.array([[2.0, 5.0, 1.0], [1.0, 2.5, 0.5]])
    cpu = np.array([[0.5, 1.0, 0.5], [1.0, 2.0, 1.0]])
    times = np.stack([wall, cpu], axis=-1)[None].repeat(2 * PAIRS, axis=0)
    times[-1, 0, 2, 0] = 101
    counts = np.array([[4, 2], [6, 2]]).repeat(PAIRS, axis=0)
    found = summarise("detect", times, counts, 3, "thread-cpu")
    assert found.ratio == pytest.approx((0.5, 0.5, 0.5))
    assert summarise("detect", times, counts, 3, "wall").ratio == pytest.approx((2, 2, 2))
    assert (found.before[0], found.model[0], found.after[0], found.whole[0]) == (2, 5, 1, 8)
    assert found.whole[1] == pytest.approx(np.percentile([8] * 19 + [108], 95))
    assert (found.boxes, found.against_boxes) == (5, 2)


def test_several_threads_are_timed_by_the_wall(classifier: Path) -> None:
    found = measure_end_to_end(classifier, classifier, [camera_picture()], runtime=Runtime(threads=2))
    assert (found.task, found.clock, found.boxes) == ("classify", "wall", 5)


def test_what_takes_no_pictures_or_another_task_is_said(detector: Path, classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"loop\.onnx takes no colour picture"):
        open_chain(save_loop(tmp_path / "loop.onnx", 2), CPU)
    with pytest.raises(MeasurementError, match=r"is made to detect, .* to classify"):
        measure_end_to_end(detector, classifier, [camera_picture()], runtime=CPU)


def test_pictures_are_spread_over_a_folder_and_blue_comes_first(tmp_path: Path) -> None:
    assert [image.shape for image in pictures(None)] == [(*CAMERA, 3)]
    for number in range(30):
        Image.new("RGB", (4, 2), (number, 0, 200)).save(tmp_path / f"{number:02}.png")
    found = pictures(tmp_path)
    assert [int(image[0, 0, 2]) for image in found] == [0, 3, 6, 10, 13, 16, 19, 23, 26, 29]
    assert all(image.shape == (2, 4, 3) and image[0, 0, 0] == 200 for image in found)
    (tmp_path / "00.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"00\.png cannot be read"):
        pictures(tmp_path)
    with pytest.raises(UserError, match="there are no images"):
        pictures(tmp_path / "absent")
