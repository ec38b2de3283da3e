"""ncnn on the CPU: the folder that pnnx writes, with ``*.param``, ``*.bin`` and Ultralytics' metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
import yaml
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.runtimes.session import Arrays, Input, Runtime, Session, inside

_ncnn: Any = ncnn
FP16_WEIGHTS = bytes.fromhex("476b3001")  # ncnn's mark before weights in 16-bit float (0x01306B47, little-endian)
IN_16_BITS = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage")


class NcnnSession(Session):
    """A model in ncnn, which knows no batch: it takes one image.

    ncnn computes in 16 bits wherever the processor can, whatever the file holds. Here it may do so, as it does by
    itself, with files whose weights have 16 bits; a file in 32 bits is computed in 32. x86 makes no difference.
    """

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._net = _loaded(path, runtime.threads)
        self._outputs = sorted(self._net.output_names())
        self.inputs = (Input(name=self._net.input_names()[0], shape=_shape(path), dtype=np.dtype(np.float32)),)

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        """As ``Session``."""
        [images] = arrays
        if len(images) != 1:
            raise MeasurementError(f"ncnn takes one image at a time, not {len(images)}; use batch 1")
        pixels = np.ascontiguousarray(images[0])
        matrix = _ncnn.Mat(pixels).clone()  # else a view of an array that may go

        def run() -> list[NDArray[Any]]:
            with self._net.create_extractor() as extractor:
                extractor.input(self.inputs[0].name, matrix)
                return [np.array(extractor.extract(name)[1])[None] for name in self._outputs]

        return run

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        """As ``Session``."""
        [images] = arrays
        answers = [self.bind([image[None]])() for image in images]
        return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


def _loaded(path: Path, threads: int) -> Any:
    param = inside(path, "*.param", "ncnn")
    weights = param.with_suffix(".bin")
    net = _ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    if not weights.is_file() or weights.read_bytes()[:4] != FP16_WEIGHTS:
        for option in IN_16_BITS:
            setattr(net.opt, option, False)
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise MeasurementError(f"ncnn {_ncnn.__version__} cannot load {path}; export the model again")
    return net


def _shape(path: Path) -> tuple[int, ...]:
    """Of the input: the files do not say how large an image is, but Ultralytics' metadata beside them do."""
    file = path / "metadata.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        height, width = content["imgsz"]
        return (1, int(content.get("channels", 3)), int(height), int(width))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise MeasurementError(f"{file} does not say how large an image is: {error}; export the model again") from error
