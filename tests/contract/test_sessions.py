"""Every runtime behind the one interface: the same model, exported for each, gives what PyTorch gives."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from search.environments import LITERT, find_python
from search.errors import MeasurementError
from search.runtimes.session import Arrays, Runtime, Session, made_up
from search.runtimes.table import RUNTIMES, described, open_session
from search.stages.export import export_onnx
from search.stages.formats import export_format
from search.stages.norm import reestimate_norms
from spaces.recipe import Export, Fp32
from tests.tiny import SIZE, answers, noise, tiny_model

IMAGES = noise(2)
TOLERANCE = 0.01  # pixels of the boxes, and of scores: runtimes add up in different orders
PACKAGES = {"openvino": "openvino", "openvino-folder": "openvino", "ncnn": "ncnn", "litert": "ai_edge_litert"}
NAMES = ("onnxruntime", "openvino", "openvino-folder", "ncnn", "torchscript", "litert")
SUFFIX = {"torchscript": "model.torchscript", "litert": "model.tflite"}
LARGE = 256  # pixels: of less, some runtimes leave all to one thread
Open = Callable[..., Session]
every = pytest.mark.parametrize("name", NAMES)


def cpu_times(session: Session, *, runs: int) -> tuple[float, float]:
    """Seconds of CPU time of so many runs: this thread's, and all of the process's."""
    run = session.bind(made_up(session, Path("model"), 0))
    for _ in range(5):
        run()
    thread, process = time.thread_time(), time.process_time()
    for _ in range(runs):
        run()
    return time.thread_time() - thread, time.process_time() - process


def runtime_of(name: str) -> Runtime:
    return Runtime(name=name.partition("-")[0])


@pytest.fixture(scope="module")
def lively_model() -> nn.Module:
    """A model whose answers depend on the picture."""
    model = tiny_model()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data *= 0.3
            module.bias.data *= 0.3
    reestimate_norms(model, [torch.from_numpy(np.concatenate(noise(16, seed=1)))])
    return model.eval()


@pytest.fixture(scope="module")
def file(lively_model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The model as a runtime reads it; made once for each."""
    made: dict[tuple[str, int], Path] = {}

    def get(name: str, image_size: int = SIZE) -> Path:
        if name in PACKAGES:
            pytest.importorskip(PACKAGES[name])
        if (name, image_size) not in made:
            made[name, image_size] = write(name, image_size, tmp_path_factory.mktemp(name))
        return made[name, image_size]

    def write(name: str, image_size: int, folder: Path) -> Path:
        match name:
            case "onnxruntime" | "openvino":
                file = folder / "model.onnx"
                return export_onnx(lively_model, Export(fast_dfl=False), image_size=image_size, path=file)
            case "litert":
                if find_python(LITERT) is None:
                    pytest.skip("the environment that writes LiteRT files is not there")
                write = pytest.importorskip("search.stages.litert").write_litert
                return write(lively_model, Fp32(), image_size=image_size, images=noise, path=folder / "model.tflite")
            case _:
                return export_format(lively_model, name.partition("-")[0], image_size=image_size, folder=folder)

    return get


@pytest.fixture
def opened(file: Callable[..., Path]) -> Open:
    def get(name: str, image_size: int = SIZE, **changes: int) -> Session:
        return open_session(file(name, image_size), replace(runtime_of(name), **changes))

    return get


def bound(session: Session, arrays: Arrays) -> np.ndarray:
    """The first output of a run that was bound before."""
    found: Any = session.bind(arrays)()
    if type(session).__name__ == "LiteRTSession":
        interpreter: Any = session._interpreter  # pyright: ignore[reportAttributeAccessIssue]
        output = np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
        output[:, :4] *= SIZE
        return output
    return np.asarray(found if hasattr(found, "shape") else found[0])


@every
def test_outputs_are_those_of_pytorch(name: str, opened: Open, lively_model: nn.Module) -> None:
    session = opened(name)
    [item] = session.inputs
    assert (item.shape, item.dtype) == ((1, 3, SIZE, SIZE), np.float32)
    expected = answers(lively_model, IMAGES)
    assert np.abs(expected[0] - expected[1]).max() > 1  # so that a session that ignores its input is seen
    for image, own in zip(IMAGES, expected, strict=True):
        [output] = session.run([image])
        assert output.shape == (1, *own.shape)
        np.testing.assert_allclose(output[0], own, atol=TOLERANCE)


@every
def test_a_bound_run_runs_on_what_it_was_given(name: str, opened: Open, lively_model: nn.Module) -> None:
    session = opened(name)
    first, second = (image.copy() for image in IMAGES)
    for image, own in ((first, IMAGES[0]), (second, IMAGES[1]), (first, IMAGES[0])):
        np.testing.assert_allclose(bound(session, [image]), answers(lively_model, [own]), atol=TOLERANCE)


@every
def test_one_thread_is_the_callers(name: str, opened: Open) -> None:
    """Latency is measured by this thread's CPU time, so there must be no other that computes."""
    session = opened(name, image_size=LARGE)
    thread, process = cpu_times(session, runs=100)
    assert thread > 0.99 * process


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two threads need two cores")
@every
def test_two_threads_share_the_work(name: str, opened: Open) -> None:
    """However little: on a busy machine the second thread often comes too late."""
    session = opened(name, image_size=LARGE, threads=2)
    thread = process = 0.0
    for _ in range(50):
        more = cpu_times(session, runs=20)
        thread, process = thread + more[0], process + more[1]
        if process > 0.3 and thread < 0.98 * process:
            return
    pytest.fail(f"the calling thread computed for {thread:.3f} of {process:.3f} s")


@every
def test_a_wrong_file_is_one_line_that_names_it(name: str, file: Callable[..., Path], tmp_path: Path) -> None:
    file(name)  # skips where the runtime is not installed
    absent = tmp_path / "absent"
    with pytest.raises(MeasurementError, match=rf"there is no \w+ ?\w* file at {absent}"):
        open_session(absent, runtime_of(name))
    broken = tmp_path / SUFFIX.get(name, "model.onnx")
    broken.write_bytes(b"not a model at all, but long enough to be read as one" * 10)
    with pytest.raises(MeasurementError, match=rf"cannot load {broken}.*export the model again"):
        open_session(broken, runtime_of(name))


def test_a_model_without_its_image_size_is_refused(file: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "model_ncnn_model"
    folder.mkdir()
    for part in file("ncnn").iterdir():
        (folder / part.name).write_bytes(part.read_bytes())
    (folder / "metadata.yaml").write_text("batch: 1\n", encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"metadata\.yaml does not say how large an image is"):
        open_session(folder, Runtime(name="ncnn"))


@pytest.mark.parametrize(
    "name", [name for name in RUNTIMES if not importlib.util.find_spec(name.replace("litert", "ai_edge_litert"))]
)
def test_a_runtime_that_is_missing_says_how_to_get_it(name: str, tmp_path: Path) -> None:
    if name == "torchscript":
        pytest.skip("its package is torch")
    provider = next(iter(RUNTIMES[name].providers))
    with pytest.raises(MeasurementError, match=f"{name} cannot be imported.*(pip install|environment)"):
        open_session(tmp_path / "model", Runtime(name=name, provider=provider))


def test_a_provider_that_is_missing_is_no_silent_cpu(file: Callable[..., Path]) -> None:
    for provider in ("cuda", "tensorrt", "openvino"):
        with pytest.raises(MeasurementError, match=r"has no working \w+ExecutionProvider here, only .*CPUExecution"):
            open_session(file("onnxruntime"), Runtime(provider=provider))


def test_a_runtime_is_described_with_its_version() -> None:
    for name in ("onnxruntime", "openvino", "torchscript"):
        assert described(Runtime(name=name)).split()[1:] != []
    assert described(Runtime(provider="openvino")) == "onnxruntime openvino"  # not the version of another package
