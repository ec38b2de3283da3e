"""Every runtime: where its session is, which files it reads, and which providers it has.

A runtime is a file beside this one and a line here. Its package is imported when a session is opened.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from search.errors import MeasurementError
from search.runtimes.session import Runtime, Session


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A runtime: the class that opens files, and what it needs.

    ``format`` is a key of ``search.formats.FORMATS``; ``packages`` are those that its version is read from, of several
    that ship the same module.
    """

    module: str
    session: str
    format: str
    packages: tuple[str, ...]
    providers: tuple[str, ...] = ("cpu",)


RUNTIMES: dict[str, Entry] = {
    "onnxruntime": Entry(
        module="search.runtimes.onnx_runtime",
        session="OnnxSession",
        format="onnx",
        packages=("onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu"),
        providers=("cpu", "openvino", "cuda", "tensorrt"),
    ),
}


def open_session(path: Path, runtime: Runtime) -> Session:
    """Loads the file, or the folder, at ``path``.

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
        raise MeasurementError(f"{runtime.name} cannot be imported: {error}; doctor says how to install it") from error
    return getattr(module, entry.session)(path, runtime)


def described(runtime: Runtime) -> str:
    """A runtime with its version and provider, such as "onnxruntime 1.32.0 cpu"."""
    for package in RUNTIMES[runtime.name].packages:
        with suppress(metadata.PackageNotFoundError):
            return f"{package} {metadata.version(package)} {runtime.provider}"
    return f"{runtime.name} {runtime.provider}"
