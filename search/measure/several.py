"""Files for one picture as files for several: what a target with a ``batch`` times in their place."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from search.errors import MeasurementError
from search.measure.batched import rewrite_batch
from search.measure.parcel import pack
from search.measure.worker import Worker
from search.runtimes.session import Runtime

ADVICE = "time one picture at a time, with a target whose batch is 1, or try another precision"


class Several:
    """Rewrites files for ``batch`` pictures, and has each that it did not see before checked on its runtime.

    Args:
        worker: the child that checks them.
        batch: pictures in one run; with one, files are taken as they are.
        seconds: how long checking a file may take, but for what building it takes.
    """

    def __init__(self, worker: Worker, batch: int, *, seconds: float) -> None:
        self._worker, self._batch, self._seconds = worker, batch, seconds
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._checked: set[tuple[str, Runtime]] = set()  # contents of files that answer the same, and on what

    @contextmanager
    def files(self, candidate: tuple[Path, Runtime], baseline: tuple[Path, Runtime]) -> Generator[tuple[Path, Path]]:
        """The two files, each with its runtime, for so many pictures.

        A candidate's is removed afterwards. A baseline's stays, for the next candidate: a runtime that compiles a
        file for minutes knows it by its path and age.

        Raises:
            MeasurementError: a file is missing, cannot be rewritten, or then answers otherwise.
        """
        if self._batch == 1:
            yield candidate[0], baseline[0]
            return
        theirs = self._written(baseline[0])
        ours = self._written(candidate[0])
        try:
            self._check(baseline, theirs)
            self._check(candidate, ours)
            yield ours, theirs
        finally:
            if ours != theirs:
                ours.unlink()

    def close(self) -> None:
        """Removes what was written."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _written(self, file: Path) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="yolo-front-batch-")
        written = Path(self._folder.name) / f"{pack(file).sha256}.onnx"
        if not written.exists():
            rewrite_batch(file, written, self._batch)
        return written

    def _check(self, own: tuple[Path, Runtime], written: Path) -> None:
        file, runtime = own
        if (written.name, runtime) in self._checked:
            return
        request = {
            "do": "check",
            "single": str(file),
            "batched": str(written),
            "batch": self._batch,
            "runtime": asdict(runtime),
        }
        seconds = self._seconds + 2 * runtime.part.building
        if why := self._worker.ask(request, about=file, seconds=seconds)["why"]:
            raise MeasurementError(f"{why}; {ADVICE}")
        self._checked.add((written.name, runtime))
