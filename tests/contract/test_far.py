"""A runtime in an environment of its own: the same answers, from a child process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search.environments import find_python
from search.errors import MeasurementError, UserError
from search.measure import worker
from search.measure.accuracy import measure_accuracy
from search.measure.apart import Apart
from search.measure.far import FarSession, sessions_of
from search.measure.worker import Worker, environment_of
from search.runtimes.session import Runtime
from search.target import Target, load_target
from spaces.parts.quantize import Quantize
from spaces.recipe import Fp32, Int8Static
from tests.tiny import SIZE, noise, onnx_answers

HERE = Path(sys.executable)
ELSEWHERE = Runtime(environment=("made-up-package==1",))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every environment is the one of this process; the list has those that were asked for."""
    asked: list[object] = []
    monkeypatch.setattr(worker, "python_of", lambda environment: asked.append(environment) or HERE)
    return asked


def test_a_far_session_gives_what_a_near_one_gives(leaf: Callable[[Quantize], Path]) -> None:
    file, images = leaf(Fp32()), noise(3)
    with sessions_of(Runtime(), python=HERE) as load:
        session = load(file)
        assert isinstance(session, FarSession)
        [item] = session.inputs
        assert (item.shape, item.dtype) == ((1, 3, SIZE, SIZE), np.float32)
        found = np.concatenate([session.run([image])[0] for image in images])
        np.testing.assert_array_equal(found, onnx_answers(file, images))
        other = load(leaf(Int8Static()))
        np.testing.assert_array_equal(other.run([images[0]])[0], onnx_answers(leaf(Int8Static()), images[:1]))


def test_errors_come_back_in_words_and_the_child_goes_on(leaf: Callable[[Quantize], Path], tmp_path: Path) -> None:
    with sessions_of(Runtime(), python=HERE) as load:
        with pytest.raises(MeasurementError, match=r"there is no ONNX file at .*absent\.onnx"):
            load(tmp_path / "absent.onnx")
        session = load(leaf(Fp32()))
        assert session.run(noise(1))[0].shape[0] == 1


def test_the_child_ends_with_its_context(leaf: Callable[[Quantize], Path]) -> None:
    with Worker(python=HERE) as own:
        own.ask({"do": "open", "path": str(leaf(Fp32())), "runtime": {}}, about=leaf(Fp32()), seconds=60)
        child = own.pid
        assert child is not None and child != os.getpid()
    assert not Path(f"/proc/{child}").exists()


def test_accuracy_is_the_same_there(leaf: Callable[[Quantize], Path], data: Path, here: list[object]) -> None:
    file = leaf(Fp32())
    near = measure_accuracy(file, data, image_size=SIZE)
    assert here == []
    far = measure_accuracy(file, data, image_size=SIZE, runtime=ELSEWHERE)
    assert here == [environment_of(ELSEWHERE.environment)]
    assert far == near


def test_latency_is_measured_there(leaf: Callable[[Quantize], Path], here: list[object]) -> None:
    target = Target(environment=ELSEWHERE.environment, runs=20)
    with Apart(target) as apart:
        assert here == []  # made when it is needed
        latency = apart.measure(leaf(Fp32()), baseline=leaf(Fp32()))
        apart.measure(leaf(Fp32()), baseline=leaf(Fp32()))
    assert here == [environment_of(ELSEWHERE.environment)]
    assert latency.ratio == pytest.approx(1, abs=0.3)


def test_an_environment_that_cannot_be_made_is_one_line(
    leaf: Callable[[Quantize], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_FRONT_ENVIRONMENTS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with Apart(Target(environment=("no-such-package==1",))) as apart, pytest.raises(UserError, match="no-such-package"):
        apart.measure(leaf(Fp32()), baseline=leaf(Fp32()))
    assert find_python(environment_of(("no-such-package==1",))) is None


@pytest.mark.slow
def test_the_real_environment_of_the_openvino_provider(
    leaf: Callable[[Quantize], Path], data: Path, provider_environment: None
) -> None:
    """Its onnxruntime is another than this process has, though both go by one name."""
    target, file = load_target("onnxruntime-openvino", runs=20), leaf(Fp32())
    found = measure_accuracy(file, data, image_size=SIZE, runtime=target.as_runtime)
    assert found.value == pytest.approx(measure_accuracy(file, data, image_size=SIZE).value, abs=1e-3)
    with Apart(target) as apart:
        latency = apart.measure(file, baseline=file)
    with Apart(target.model_copy(update={"batch": 3})) as apart:
        assert apart.measure(file, baseline=file).batch == 3
    assert latency.runtime == "onnxruntime-openvino 1.24.1 openvino"
    assert latency.ratio == pytest.approx(1, abs=0.3)
