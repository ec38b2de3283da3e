"""ONNX Runtime, on the CPU, with OpenVINO's or TensorRT's provider, or on an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.runtimes.plans import plan_folder
from search.runtimes.session import Arrays, Input, Runtime, Session
from search.runtimes.table import RUNTIMES

_ort: Any = onnxruntime  # it has no type stubs

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class OnnxSession(Session):
    """A model in ONNX Runtime. On a GPU its inputs and outputs stay there, and a run ends when the device is done."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._session = open_onnx(path, threads=runtime.threads, provider=runtime.provider)
        self._on_gpu = runtime.part.device == "gpu"
        self.inputs = tuple(_input(item, path) for item in self._session.get_inputs())

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        """As ``Session``."""
        session, feed = self._session, self._feed(arrays)
        if not self._on_gpu:
            return lambda: session.run(None, feed)
        binding = session.io_binding()
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, _ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
        for output in session.get_outputs():
            binding.bind_output(output.name, "cuda", 0)

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        """As ``Session``."""
        return [np.asarray(output) for output in self._session.run(None, self._feed(arrays))]

    def _feed(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        return {item.name: array for item, array in zip(self.inputs, arrays, strict=True)}


def open_onnx(
    path: Path, *, threads: int, provider: str = "cpu", optimised: Path | None = None
) -> onnxruntime.InferenceSession:
    """Opens an ONNX file as it is timed: every graph optimisation, operators in turn.

    The provider computes all of it, or it is an error: ONNX Runtime would compute the rest on the CPU, or everything
    if the provider cannot be loaded, without a word. The graph as it was optimised is written to
    ``optimised``, if given.

    Raises:
        MeasurementError: the file is missing, ONNX Runtime refuses it, or has no such provider, or the provider does
            not compute all of the file.
    """
    if not path.is_file():
        raise MeasurementError(f"there is no ONNX file at {path}; export the model first, or correct the path")
    part = RUNTIMES["onnxruntime"].providers[provider]
    name = part.name
    if name not in _ort.get_available_providers():
        raise _no_provider(name, f"only {', '.join(_ort.get_available_providers())}")
    if part.device == "gpu":
        _load_libraries(provider)
    own = _provider_options(provider, threads, path)
    options = _session_options(threads, provider, optimised)
    try:  # a run that fails must not fall back to the CPU; exceptions have no base class of their own
        session = _ort.InferenceSession(str(path), options, providers=[(name, own)], enable_fallback=False)
    except Exception as error:
        if why := _why_not_loaded(provider):
            raise _no_provider(name, why) from error
        raise MeasurementError(
            f"ONNX Runtime {_ort.__version__} cannot load {path} for {name}: {error}; export the model again, or "
            "with an operator set or a precision that this provider supports"
        ) from error
    if name not in session.get_providers():
        raise _no_provider(name, f"only {', '.join(session.get_providers())}")
    return session


def _session_options(threads: int, provider: str, optimised: Path | None) -> Any:
    options = _ort.SessionOptions()
    options.graph_optimization_level = _ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = _ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    if threads > 1:
        # Two sessions take turns here: the idle one's threads must not spin on the cores of the one being
        # timed.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _no_provider(name: str, why: str) -> MeasurementError:
    return MeasurementError(
        f"ONNX Runtime {_ort.__version__} has no working {name} here, {why}; see doctor, or choose another target"
    )


@cache
def _load_libraries(provider: str) -> None:
    """Loads NVIDIA's libraries from where pip put them, in this environment or one below it: no system looks there.

    What is not found is left to the system's own places; a session that misses it says so.
    """
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations or [] if spec else []
    folders = sorted(folder for place in places for folder in Path(place).glob("*/lib"))
    if hasattr(_ort, "preload_dlls"):  # since 1.21
        with redirect_stdout(sys.stderr):  # it prints what a folder has not
            for folder in folders:
                _ort.preload_dlls(directory=str(folder))
    if provider == "tensorrt":
        with suppress(ImportError):
            import_module("tensorrt")  # which loads its own


def _why_not_loaded(provider: str) -> str:
    """Which library the provider lacks; empty if none. ONNX Runtime's exception does not say it, only its log.

    To be asked after a session was tried: the provider's library needs what that has set up.
    """
    library = Path(_ort.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    if library.is_file():
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return str(error)
    return ""


def _provider_options(provider: str, threads: int, path: Path) -> dict[str, str]:
    """32-bit floats are computed as such: the defaults are BF16 on CPUs that have it, and TF32 on NVIDIA's GPUs."""
    match provider:
        case "openvino":
            settings = {"CPU": {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": "NO"}}
            threading = {"num_of_threads": str(threads), "num_streams": "1"}
            return {"device_type": "CPU", "precision": "FP32", "load_config": json.dumps(settings)} | threading
        case "cuda":
            return {"device_id": "0", "use_tf32": "0"}
        case "tensorrt":
            own = {"device_id": "0", "trt_fp16_enable": "0", "trt_int8_enable": "0"}
            # In a folder of the file's own: the names of engines there do not tell one file's weights from another's.
            folder = plan_folder(path, "onnxruntime", _ort.__version__)
            return own | {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
        case _:
            return {}


def _input(item: Any, path: Path) -> Input:
    """A batch size left open is one image: that is how a single-stream deployment runs."""
    shape = [1 if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(item.shape)]
    if item.type not in _DTYPES or not all(isinstance(size, int) and size > 0 for size in shape):
        raise MeasurementError(
            f"input {item.name!r} of {path} has type {item.type} and shape {item.shape}, which cannot be "
            f"made up; export the model with a fixed input size and one of {', '.join(_DTYPES)}"
        )
    return Input(name=item.name, shape=tuple(shape), dtype=np.dtype(_DTYPES[item.type]))
