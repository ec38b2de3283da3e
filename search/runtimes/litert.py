"""LiteRT, which was TensorFlow Lite, on the CPU: its interpreter with the XNNPACK delegate."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.runtimes.session import Arrays, Input, Runtime, Session

_litert: Any = importlib.import_module("ai_edge_litert.interpreter")  # in an environment of its own, often
CHANNELS = (1, 3)  # of pictures: the axis of such a size is that of the channels


class LiteRTSession(Session):
    """A ``.tflite`` file. Pictures are given as (N, 3, H, W) also to a file that has its channels last.

    Input and output are floats; a file that quantizes inside is as good. Such files have boxes as fractions of the
    picture's sides, by Ultralytics' convention, and ``run`` gives pixels, as every other runtime does.
    """

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._interpreter = _allocated(path, runtime.threads)
        details = self._interpreter.get_input_details()
        self._indices = [int(item["index"]) for item in details]
        self._last = [_channels_last(tuple(item["shape"])) for item in details]
        self.inputs = tuple(_input(item, last, path) for item, last in zip(details, self._last, strict=True))

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        """As ``Session``."""
        self._fill(arrays)
        return self._interpreter.invoke

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        """As ``Session``."""
        self._fill(arrays)
        self._interpreter.invoke()
        found = [self._interpreter.get_tensor(item["index"]) for item in self._interpreter.get_output_details()]
        return [_in_pixels(output, self.inputs[0].shape) if output.ndim == 3 else output for output in found]

    def _fill(self, arrays: Arrays) -> None:
        """Copies the arrays into the interpreter, where they stay: it has one place for each input."""
        for index, last, array in zip(self._indices, self._last, arrays, strict=True):
            self._interpreter.set_tensor(index, np.ascontiguousarray(array.transpose(0, 2, 3, 1) if last else array))


def _allocated(path: Path, threads: int) -> Any:
    if not path.is_file():
        raise MeasurementError(f"there is no LiteRT file at {path}; export the model first, or correct the path")
    try:
        interpreter = _litert.Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise MeasurementError(f"LiteRT cannot load {path}: {error}; export the model again") from error
    return interpreter


def _in_pixels(output: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A detector's answers (N, 4 + classes, anchors), whose boxes (x, y, width, height) are fractions, in pixels."""
    height, width = shape[2:]
    sides = np.ones((output.shape[1], 1), dtype=output.dtype)
    sides[:4, 0] = width, height, width, height
    return output * sides


def _channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] in CHANNELS and shape[1] not in CHANNELS


def _input(item: Any, last: bool, path: Path) -> Input:
    if item["dtype"] is not np.float32:
        raise MeasurementError(
            f"input {item['name']} of {path} has the type {np.dtype(item['dtype'])}; export the model with float32 in "
            "and out"
        )
    shape = tuple(int(size) for size in item["shape"])
    if last:
        shape = (shape[0], shape[3], shape[1], shape[2])
    return Input(name=str(item["name"]), shape=shape, dtype=np.dtype(np.float32))
