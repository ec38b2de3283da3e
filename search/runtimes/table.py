"""Every runtime: where its session is, which files it reads, and which providers it has.

A runtime is a file beside this one and a line here. Its package is imported when a session is opened.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from search.errors import MeasurementError

Device = Literal["cpu", "gpu"]

if TYPE_CHECKING:  # they import numpy, and who only asks what is installed need not
    from search.runtimes.session import Runtime, Session


@dataclass(frozen=True)
class Provider:
    """A part of a runtime: one of ``packages`` has it, and ``install`` says how to get one.

    ``name`` is what ONNX Runtime calls it, ``device`` where it computes, and ``building`` how many seconds a file may
    take when it is opened for the first time on a machine, beyond what loading takes.
    """

    packages: tuple[str, ...]
    install: str
    name: str = ""
    device: Device = "cpu"
    building: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A runtime: the class that opens files, their format, a key of ``search.formats.FORMATS``, and its providers."""

    module: str
    session: str
    format: str
    providers: dict[str, Provider]


BUILDING = 1200.0  # seconds that TensorRT may take for an engine: minutes for a usual model on a small board
_ORT_GPU = '"onnxruntime-gpu[cuda,cudnn]==1.31.1"'  # for CUDA 13, and TensorRT 10
RUNTIMES: dict[str, Entry] = {
    "onnxruntime": Entry(
        module="search.runtimes.onnx_runtime",
        session="OnnxSession",
        format="onnx",
        providers={
            "cpu": Provider(
                ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"), "make setup", "CPUExecutionProvider"
            ),
            "openvino": Provider(
                ("onnxruntime-openvino",),
                "give the target environment: [onnxruntime-openvino==1.24.1]",
                "OpenVINOExecutionProvider",
            ),
            "cuda": Provider(
                ("onnxruntime-gpu",),
                f"give the target environment: [{_ORT_GPU}]",
                "CUDAExecutionProvider",
                device="gpu",
            ),
            "tensorrt": Provider(
                ("onnxruntime-gpu",),
                f'give the target environment: [{_ORT_GPU}, "tensorrt-cu13<11"]',
                "TensorrtExecutionProvider",
                device="gpu",
                building=BUILDING,
            ),
        },
    ),
    "openvino": Entry(
        module="search.runtimes.openvino",
        session="OpenVinoSession",
        format="onnx",
        providers={"cpu": Provider(("openvino",), "pip install -c constraints.txt -e '.[openvino]'")},
    ),
    "ncnn": Entry(
        module="search.runtimes.ncnn",
        session="NcnnSession",
        format="ncnn",
        providers={"cpu": Provider(("ncnn",), "pip install -c constraints.txt -e '.[ncnn]'")},
    ),
    "torchscript": Entry(
        module="search.runtimes.torchscript",
        session="TorchScriptSession",
        format="torchscript",
        providers={"cpu": Provider(("torch",), "make setup")},
    ),
    "litert": Entry(
        module="search.runtimes.litert",
        session="LiteRTSession",
        format="litert",
        providers={"cpu": Provider(("ai-edge-litert",), "give the target environment: [ai-edge-litert==2.3.0]")},
    ),
    "tensorrt": Entry(
        module="search.runtimes.tensorrt",
        session="TensorRTSession",
        format="onnx",
        providers={
            "cuda": Provider(
                ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
                "pip install tensorrt-cu12 or tensorrt-cu13, as PyTorch's CUDA is",
                device="gpu",
                building=BUILDING,
            )
        },
    ),
}


def open_session(path: Path, runtime: Runtime) -> Session:
    """Loads the file, or the folder, at ``path``, in this process.

    Raises:
        MeasurementError: the runtime or its provider is not known or not installed, or it refuses the file.
    """
    entry = RUNTIMES.get(runtime.name)
    if entry is None or runtime.provider not in entry.providers:
        known = ", ".join(f"{name} ({', '.join(entry.providers)})" for name, entry in RUNTIMES.items())
        raise MeasurementError(f"there is no runtime {runtime.name} with provider {runtime.provider}; known: {known}")
    try:
        module = importlib.import_module(entry.module)
    except ImportError as error:
        raise MeasurementError(
            f"{runtime.name} cannot be imported: {error}; {entry.providers[runtime.provider].install}"
        ) from error
    return getattr(module, entry.session)(path, runtime)


def described(runtime: Runtime) -> str:
    """A runtime with its version and provider, such as "onnxruntime 1.32.0 cpu"."""
    for package in runtime.part.packages:
        with suppress(metadata.PackageNotFoundError):
            return f"{package} {metadata.version(package)} {runtime.provider}"
    return f"{runtime.name} {runtime.provider}"


def runtime_packages() -> tuple[str, ...]:
    """Every package that has a runtime, or a part of one."""
    parts = [part for entry in RUNTIMES.values() for part in entry.providers.values()]
    return tuple(dict.fromkeys(package for part in parts for package in part.packages))
