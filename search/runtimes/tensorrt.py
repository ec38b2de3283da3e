"""TensorRT on an NVIDIA GPU: an engine that is built here of an ONNX file, in the types that the file has.

After "The Python API" of NVIDIA's TensorRT documentation, for TensorRT 10 and 11.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt
import torch
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.runtimes.plans import plan_folder
from search.runtimes.session import Arrays, Input, Runtime, Session

trt: Any = tensorrt  # it has no type stubs
_LOGGER = trt.Logger(trt.Logger.ERROR)
_SETTINGS = "strongly typed, no TF32"  # of ``_built``: an engine of others is another


class TensorRTSession(Session):
    """An engine on the current GPU. Inputs and outputs stay there, and a run ends when the device is done."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        if not torch.cuda.is_available():
            raise MeasurementError("TensorRT needs an NVIDIA GPU and PyTorch with CUDA; see doctor")
        if not path.is_file():
            raise MeasurementError(f"there is no ONNX file at {path}; export the model first, or correct the path")
        plan = _plan(path, path.stat().st_mtime_ns)
        self._engine = trt.Runtime(_LOGGER).deserialize_cuda_engine(plan)
        self._context = self._engine.create_execution_context()
        self._stream = torch.cuda.Stream()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self.inputs = tuple(self._described(name) for name in names if modes[name] == trt.TensorIOMode.INPUT)
        self._outputs = [self._described(name) for name in names if modes[name] == trt.TensorIOMode.OUTPUT]

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        """As ``Session``."""
        return self._bound(arrays)[0]

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        """As ``Session``."""
        run, outputs = self._bound(arrays)
        run()
        return [output.cpu().numpy() for output in outputs]

    def _bound(self, arrays: Arrays) -> tuple[Callable[[], None], list[torch.Tensor]]:
        """What runs once on ``arrays``, and the tensors on the device that it writes."""
        taken = [torch.from_numpy(np.ascontiguousarray(array)).cuda() for array in arrays]
        given = [torch.from_numpy(np.empty(item.shape, item.dtype)).cuda() for item in self._outputs]
        for item, tensor in zip((*self.inputs, *self._outputs), (*taken, *given), strict=True):
            self._context.set_tensor_address(item.name, tensor.data_ptr())
        torch.cuda.synchronize()  # the copies went by another stream

        def run() -> None:
            assert taken and given  # TensorRT has their addresses only
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError("TensorRT did not start the run")
            self._stream.synchronize()

        return run, given

    def _described(self, name: str) -> Input:
        shape = tuple(self._engine.get_tensor_shape(name))
        if any(size < 1 for size in shape):
            raise MeasurementError(f"{name} has the shape {shape}; export the model with a fixed batch and input size")
        return Input(name=name, shape=shape, dtype=np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))))


@lru_cache(maxsize=4)  # the files of a measurement, which loads them again and again
def _plan(path: Path, changed_ns: int) -> bytes:
    """The serialized engine of the file at ``path``, built if it was not before on this machine.

    ``changed_ns`` is when the file was changed, so that another file of the same name is another.
    """
    folder = plan_folder(path, "tensorrt", trt.__version__, torch.cuda.get_device_name(), _SETTINGS)
    kept = folder / "engine.plan"
    if not kept.exists():
        building = folder / f"engine-{os.getpid()}.tmp"
        building.write_bytes(_built(path))
        os.replace(building, kept)
    return kept.read_bytes()


def _built(path: Path) -> Any:
    """The engine, which may take minutes: no type is lowered, and 32-bit floats are computed as such."""
    builder = trt.Builder(_LOGGER)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, _LOGGER)
    if not parser.parse_from_file(str(path)):
        errors = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise MeasurementError(
            f"TensorRT {trt.__version__} cannot read {path}: {errors}; its 8-bit values are signed with zero point 0, "
            "so use a recipe with fp32 or fp16"
        )
    settings = builder.create_builder_config()
    settings.clear_flag(trt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise MeasurementError(f"TensorRT {trt.__version__} cannot build an engine of {path}; try another precision")
    return plan
