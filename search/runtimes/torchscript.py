"""TorchScript on the CPU: a traced module, frozen."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.runtimes.session import Arrays, Input, Runtime, Session

METADATA = "config.txt"  # Ultralytics' JSON, beside the code in the file


class TorchScriptSession(Session):
    """A traced module with its weights folded in; ``threads`` are those of the whole process, PyTorch has no others.

    ``torch.jit.optimize_for_inference`` is left out: it made YOLOv8n slower (r 1.59 instead of 1.46 of ONNX Runtime).
    """

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._threads = runtime.threads
        self._module, shape = _loaded(path)
        self.inputs = (Input(name="images", shape=shape, dtype=np.dtype(np.float32)),)

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        """As ``Session``."""
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]

        def run() -> Any:
            if torch.get_num_threads() != self._threads:
                torch.set_num_threads(self._threads)
            with torch.inference_mode():
                return self._module(*tensors)

        return run

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        """As ``Session``."""
        found: Any = self.bind(arrays)()
        return [output.numpy() for output in (found if isinstance(found, (tuple, list)) else (found,))]


def _loaded(path: Path) -> tuple[Any, tuple[int, ...]]:
    """The module, and the shape of its input, which only Ultralytics' metadata says."""
    if not path.is_file():
        raise MeasurementError(f"there is no TorchScript file at {path}; export the model first, or correct the path")
    extra: dict[str, Any] = {METADATA: ""}
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
            module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra).eval()
            frozen = torch.jit.freeze(module)
        content = json.loads(extra[METADATA])
        height, width = content["imgsz"]
    except Exception as error:  # PyTorch's exceptions have no base class of their own
        raise MeasurementError(
            f"PyTorch {torch.__version__} cannot load {path}: {_first_line(error)}; export the model again"
        ) from error
    return frozen, (1, int(content.get("channels", 3)), int(height), int(width))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
