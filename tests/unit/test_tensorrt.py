"""TensorRT's engines, by an invented TensorRT: each is built once on a machine, whole or not at all."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from search.errors import MeasurementError
from search.runtimes import plans
from search.runtimes.session import Runtime
from search.runtimes.table import open_session

TENSORRT = Runtime(name="tensorrt", provider="cuda")
_LATER = itertools.count()


class FakeTensorRT(ModuleType):
    """Builds engines that say which file they are of; ``built`` has the contents of those files."""

    def __init__(self) -> None:
        super().__init__("tensorrt")
        self.__version__ = "10.13"
        self.built: list[bytes] = []
        self.fails = False
        self.Logger = lambda level: None
        self.Logger.ERROR = 0
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
        self.BuilderFlag = SimpleNamespace(TF32=0)
        self.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
        self.nptype = lambda kind: np.float32
        self.Builder, self.OnnxParser, self.Runtime = self._builder, self._parser, self._runtime

    def _builder(self, logger: object) -> Any:
        return SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(),
            create_builder_config=lambda: SimpleNamespace(clear_flag=lambda flag: None),
            build_serialized_network=self._build,
        )

    def _build(self, network: Any, settings: object) -> bytes | None:
        if self.fails:
            return None
        self.built.append(network.content)
        return b"engine of " + network.content

    def _parser(self, network: Any, logger: object) -> Any:
        def parse(path: str) -> bool:
            network.content = Path(path).read_bytes()
            return True

        return SimpleNamespace(parse_from_file=parse)

    def _runtime(self, logger: object) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _engine(self, plan: bytes) -> Any:
        assert plan.startswith(b"engine of ")
        return SimpleNamespace(
            num_io_tensors=2,
            create_execution_context=lambda: None,
            get_tensor_name=lambda index: ("images", plan.decode())[index],
            get_tensor_mode=lambda name: "in" if name == "images" else "out",
            get_tensor_shape=lambda name: (1, 3, 8, 8),
            get_tensor_dtype=lambda name: None,
        )


@pytest.fixture
def tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    fake = FakeTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A10")
    monkeypatch.setattr(torch.cuda, "Stream", SimpleNamespace)
    yield fake
    sys.modules.pop("search.runtimes.tensorrt", None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model.onnx", b"weights")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(0, next(_LATER)))  # a file system's clock is coarse
    return path


def engine_of(path: Path) -> str:
    """Opens the file as a new process does; what its engine is of."""
    sys.modules.pop("search.runtimes.tensorrt", None)
    session: Any = open_session(path, TENSORRT)
    return session._outputs[0].name


def kept(home: Path) -> list[Path]:
    return [file for file in home.glob(".cache/yolo-front/plans/*/*") if file.is_file()]


def test_a_file_is_built_once_on_a_machine(tensorrt: FakeTensorRT, model: Path, tmp_path: Path) -> None:
    assert engine_of(model) == "engine of weights"
    assert engine_of(model) == "engine of weights"
    assert engine_of(write(tmp_path / "copy.onnx", b"weights")) == "engine of weights"
    assert tensorrt.built == [b"weights"]


def test_other_weights_another_tensorrt_and_another_gpu_have_engines_of_their_own(
    tensorrt: FakeTensorRT, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_of(model)
    assert engine_of(write(model, b"trained on")) == "engine of trained on"
    assert engine_of(write(model, b"weights")) == "engine of weights"
    assert tensorrt.built == [b"weights", b"trained on"]
    tensorrt.__version__ = "11.0"
    engine_of(model)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA T4")
    engine_of(model)
    assert tensorrt.built == [b"weights", b"trained on", b"weights", b"weights"]


def test_a_file_that_changes_under_an_open_process_is_built_anew(tensorrt: FakeTensorRT, model: Path) -> None:
    engine_of(model)
    session: Any = open_session(write(model, b"trained on"), TENSORRT)  # by the module as it is
    assert session._outputs[0].name == "engine of trained on"


def test_what_was_not_written_whole_is_built_again(
    tensorrt: FakeTensorRT, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:6])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            engine_of(model)
    assert engine_of(model) == "engine of weights"
    assert tensorrt.built == [b"weights", b"weights"]


def test_an_engine_that_cannot_be_built_leaves_nothing(tensorrt: FakeTensorRT, model: Path, tmp_path: Path) -> None:
    tensorrt.fails = True
    with pytest.raises(MeasurementError, match=r"TensorRT 10\.13 cannot build an engine of .*model\.onnx"):
        engine_of(model)
    assert kept(tmp_path / "home") == []


def test_the_engines_used_last_are_kept(
    tensorrt: FakeTensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "KEPT", 2)
    files = [write(tmp_path / f"{name}.onnx", name.encode()) for name in ("baseline", "first", "second")]
    for number in (0, 1, 0, 2):  # the baseline is opened for each candidate
        engine_of(files[number])
        for folder in (tmp_path / "home").glob(".cache/yolo-front/plans/*"):
            os.utime(folder, ns=(0, folder.stat().st_mtime_ns - 10**9))  # a second passes
    assert len(kept(tmp_path / "home")) == 2
    engine_of(files[0])
    assert tensorrt.built == [b"baseline", b"first", b"second"]
    engine_of(files[1])
    assert tensorrt.built[3:] == [b"first"]


def test_a_place_that_cannot_be_written_is_one_line(
    tensorrt: FakeTensorRT, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(MeasurementError, match=r"cannot keep the engine of .*model\.onnx in .*plans: .*make room"):
        engine_of(model)
