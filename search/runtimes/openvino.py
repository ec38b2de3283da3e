"""OpenVINO on the CPU: an ONNX file as it is, or the folder of an intermediate representation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.runtimes.session import Arrays, Input, Runtime, Session, inside

# OpenVINO reports its import to Intel if the package for that can be imported; None is as if it were not installed.
sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]

import openvino  # noqa: E402 - after that

_ov: Any = openvino


class OpenVinoSession(Session):
    """A model that OpenVINO compiled for this CPU, computing in 32 bits what the file does not have in 8.

    With one thread it computes on the calling thread: there, a run's CPU time is that of the whole process.
    """

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._model = _compiled(path, runtime.threads)
        self.inputs = tuple(_input(port, path) for port in self._model.inputs)

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        """As ``Session``."""
        request = self._request(arrays)
        return lambda: request.infer(share_outputs=True)

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        """As ``Session``."""
        found = self._request(arrays).infer(share_outputs=False)
        return [np.asarray(found[port]) for port in self._model.outputs]

    def _request(self, arrays: Arrays) -> Any:
        """A request with its inputs in place, which it has copies of: it would not keep an array of ours alive."""
        request = self._model.create_infer_request()
        for port, array in zip(self._model.inputs, arrays, strict=True):
            request.set_tensor(port, _ov.Tensor(np.ascontiguousarray(array), shared_memory=False))
        return request


def _compiled(path: Path, threads: int) -> Any:
    """The model at ``path``, compiled to answer one request at a time.

    Left to itself it would compute in bfloat16 where the processor can, and choose the core that it runs on.
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    file = inside(path, "*.xml", "OpenVINO")
    try:
        return _ov.Core().compile_model(file, "CPU", settings)
    except Exception as error:  # OpenVINO's exceptions have no base class of their own
        raise MeasurementError(
            f"OpenVINO {_ov.__version__} cannot load {path}: {' '.join(str(error).split())}; export the model again, "
            "or in another precision"
        ) from error


def _input(port: Any, path: Path) -> Input:
    """A batch size left open is one image."""
    sizes = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    shape = [1 if axis == 0 and size is None else size for axis, size in enumerate(sizes)]
    if not all(shape):
        raise MeasurementError(
            f"input {port.any_name} of {path} has the shape {port.get_partial_shape()}, which cannot be made up; "
            "export the model with a fixed input size"
        )
    return Input(name=port.any_name, shape=tuple(size or 0 for size in shape), dtype=port.get_element_type().to_dtype())
