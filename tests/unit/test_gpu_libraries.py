"""ONNX Runtime's GPU providers: their libraries are loaded from where pip put them, and what is missing is said."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from search.errors import MeasurementError
from search.runtimes import onnx_runtime
from search.runtimes.onnx_runtime import open_onnx


class Gpu:
    """ONNX Runtime with its GPU providers, where sessions open if pip's libraries were loaded before."""

    def __init__(self, place: Path) -> None:
        self.loaded: list[str] = []
        self.opened: list[dict[str, str]] = []
        self.module = SimpleNamespace(
            **{name: getattr(onnxruntime, name) for name in ("SessionOptions", "GraphOptimizationLevel")},
            ExecutionMode=onnxruntime.ExecutionMode,
            __version__="1.31.1",
            __file__=str(place / "onnxruntime" / "__init__.py"),
            get_available_providers=lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
            preload_dlls=self._preload,
            InferenceSession=self._open,
        )

    def _preload(self, directory: str) -> None:
        print("Failed to load what is in another folder")
        self.loaded.append(directory)

    def _open(self, path: str, options: Any, *, providers: list[Any], enable_fallback: bool) -> object:
        [(name, settings)] = providers
        if not self.loaded or enable_fallback:
            raise RuntimeError("nodes are assigned to the default CPU EP")
        self.opened.append(settings)
        return SimpleNamespace(get_providers=lambda: [name])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"a model")
    return file


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Two environments, one over the other, each with a package of NVIDIA's."""
    made = Gpu(tmp_path)
    monkeypatch.setattr(onnx_runtime, "_ort", made.module)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    for environment, package in (("upper", "cudnn"), ("lower", "cu13")):
        (tmp_path / environment / "nvidia" / package / "lib").mkdir(parents=True)
        monkeypatch.syspath_prepend(tmp_path / environment)
    onnx_runtime._load_libraries.cache_clear()
    return made


def test_libraries_of_all_environments_are_loaded_once_before_a_session_is_opened(
    gpu: Gpu, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        open_onnx(model, threads=1, provider="cuda")
    expected = {str(tmp_path / "lower/nvidia/cu13/lib"), str(tmp_path / "upper/nvidia/cudnn/lib")}
    assert expected <= set(gpu.loaded)
    assert len(gpu.loaded) == len(set(gpu.loaded))
    assert len(gpu.opened) == 2
    assert capsys.readouterr().out == ""  # which may be a command's JSON


def test_tensorrt_loads_its_own_libraries_by_being_imported(
    gpu: Gpu, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "upper" / "tensorrt.py").write_text("", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    open_onnx(model, threads=1, provider="cuda")
    assert "tensorrt" not in sys.modules
    open_onnx(model, threads=1, provider="tensorrt")
    assert "tensorrt" in sys.modules
    monkeypatch.delitem(sys.modules, "tensorrt")


def test_a_version_that_loads_nothing_is_taken_as_it_is(gpu: Gpu, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gpu.module, "preload_dlls")
    gpu.loaded.append("by the system")
    open_onnx(model, threads=1, provider="cuda")
    assert len(gpu.opened) == 1


def test_a_library_that_is_missing_is_named(gpu: Gpu, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime says that nodes are left for the CPU, as it does of a model that the provider cannot compute."""
    monkeypatch.setattr(gpu.module, "preload_dlls", lambda directory: None)
    with pytest.raises(MeasurementError, match=r"cannot load .*model\.onnx for CUDA.*assigned to the default CPU EP"):
        open_onnx(model, threads=1, provider="cuda")
    library = Path(gpu.module.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"no library, so that loading it fails")
    with pytest.raises(MeasurementError, match=r"no working CUDAExecutionProvider here, .*providers_cuda\.so: "):
        open_onnx(model, threads=1, provider="cuda")


def test_each_file_has_a_folder_for_tensorrts_engines(gpu: Gpu, model: Path) -> None:
    """ONNX Runtime names an engine by the file's name and its layers, so other weights must lie elsewhere."""
    folders: list[str] = []
    for content in (b"a model", b"another", b"a model"):
        model.write_bytes(content)
        open_onnx(model, threads=1, provider="tensorrt")
        assert gpu.opened[-1]["trt_engine_cache_enable"] == "1"
        folders.append(gpu.opened[-1]["trt_engine_cache_path"])
    assert folders[0] == folders[2] != folders[1]
    assert all(Path(folder).is_dir() for folder in folders)
