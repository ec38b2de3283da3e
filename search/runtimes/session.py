"""What a loaded model can do, whichever runtime loaded it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.runtimes.table import RUNTIMES, Provider

Arrays = Sequence[NDArray[Any]]
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A way to run a model: ``name`` is a key of ``search.runtimes.table.RUNTIMES``, ``provider`` one of its own.

    ``environment`` are packages for which it has a Python environment of its own; empty for the project's.
    """

    name: str = "onnxruntime"
    provider: str = "cpu"
    threads: int = 1
    environment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "environment", tuple(self.environment))  # JSON has no tuples

    @property
    def part(self) -> Provider:
        """What is known of its provider."""
        return RUNTIMES[self.name].providers[self.provider]


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input of a model: its shape with the batch first, all sizes known, and its type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Session(ABC):
    """A model that is loaded and can run; ``inputs`` says what it takes.

    On a CPU, with one thread, it computes on the thread that calls it: this thread's CPU time is the time of a run.
    """

    inputs: tuple[Input, ...]

    @abstractmethod
    def bind(self, arrays: Arrays) -> Callable[[], object]:
        """A function that runs the model once on ``arrays``, which are in place before, and returns when it is done.

        The arrays stay in place until the next ``bind`` or ``run``. What the function returns is nobody's: outputs may
        stay on the device, and are written over by its next run.
        """

    @abstractmethod
    def run(self, arrays: Arrays) -> list[NDArray[Any]]:
        """The outputs for ``arrays``, one array for each output of the model."""


def made_up(session: Session, path: Path, seed: int) -> list[NDArray[Any]]:
    """Random inputs: values in [0, 1), or 0 to 255 for bytes; equal shapes get equal values.

    Raises:
        MeasurementError: an input of a type that cannot be made up.
    """
    return [_made_up(item, path, seed) for item in session.inputs]


def _made_up(item: Input, path: Path, seed: int) -> NDArray[Any]:
    values = np.random.default_rng(seed).random(item.shape, dtype=np.float32)
    if item.dtype == np.uint8:
        return (values * 256).astype(np.uint8)
    if item.dtype.kind != "f":
        raise MeasurementError(
            f"input {item.name!r} of {path} has type {item.dtype}, which cannot be made up; export the model with a "
            "float or uint8 input"
        )
    return values.astype(item.dtype)


def checked(run: Callable[[], Result], path: Path) -> Callable[[], Result]:
    """``run``, whose failures name the file; runtimes' exceptions have no common base class."""

    def one() -> Result:
        try:
            return run()
        except Exception as error:
            raise MeasurementError(f"{path} loads but does not run: {error}; export the model again") from error

    return one


def inside(path: Path, pattern: str, runtime: str) -> Path:
    """``path`` if it is a file, else the one file in it that matches ``pattern``.

    Raises:
        MeasurementError: there is none, or more than one.
    """
    if path.is_file():
        return path
    found = sorted(path.glob(pattern))
    if len(found) != 1:
        raise MeasurementError(
            f"there is no {runtime} file at {path}, nor one {pattern} inside; export the model first, or correct the "
            "path"
        )
    return found[0]
