"""Sessions of a runtime that has a Python environment of its own: the model is loaded in a child process there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.measure.worker import Worker
from search.runtimes.session import Arrays, Input, Runtime, Session
from search.runtimes.table import open_session

PATIENCE = 300.0  # seconds to load a model, or for one run
SHARED_MEMORY = Path("/dev/shm")


class FarSession(Session):
    """A model in a worker; arrays go there and come back as files in ``folder``. Not for timing."""

    def __init__(self, path: Path, runtime: Runtime, worker: Worker, folder: Path) -> None:
        self._path, self._worker, self._folder = path, worker, folder
        request = {"do": "open", "path": str(path), "runtime": asdict(runtime)}
        answer = worker.ask(request, about=path, seconds=PATIENCE + runtime.part.building)
        self.inputs = tuple(
            Input(name=item["name"], shape=tuple(item["shape"]), dtype=np.dtype(item["dtype"]))
            for item in answer["inputs"]
        )

    def bind(self, arrays: Arrays) -> Callable[[], object]:
        """As ``Session``; the arrays are sent with every run."""
        return partial(self.run, arrays)

    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        """As ``Session``."""
        for index, array in enumerate(arrays):
            np.save(self._folder / f"input-{index}.npy", array)
        request = {"do": "run", "folder": str(self._folder), "inputs": len(arrays)}
        answer = self._worker.ask(request, about=self._path, seconds=PATIENCE)
        return [np.load(self._folder / f"output-{index}.npy") for index in range(answer["outputs"])]


@contextmanager
def sessions_of(runtime: Runtime, *, python: Path | None = None) -> Generator[Callable[[Path], Session]]:
    """Yields what loads a file for ``runtime``: in this process, or in a child if it has an environment of its own.

    One model is loaded at a time: with the next one, a child forgets the one before. ``python`` is the interpreter of
    a child.
    """
    if not runtime.environment and python is None:
        yield lambda path: open_session(path, runtime)
        return
    place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with Worker(runtime.environment, python=python) as worker, tempfile.TemporaryDirectory(dir=place) as folder:
        yield lambda path: FarSession(path, runtime, worker, Path(folder))
