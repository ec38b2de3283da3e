"""The child process of ``search.measure.worker``: a JSON request a line on standard input, an answer a line back.

A request's ``do`` is ``measure``, two files' latency; ``check``, whether a file for several pictures answers as that
for one; ``profile``, more of two files; ``open``, which loads a model; or ``run``, which runs that on the arrays of a
folder. It may run in an environment that has little more than numpy and a runtime, so nothing else is imported here.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import MeasurementError
from search.measure.batch_check import why_no_batch
from search.measure.latency import measure_latency
from search.measure.pairs import Effort
from search.measure.profile import profile_model
from search.runtimes.session import Runtime, Session
from search.runtimes.table import open_session


def _serve() -> None:
    """Answers requests until standard input ends, or the parent does."""
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a runtime prints is no answer
    requests = _Requests()
    for line in sys.stdin:
        answers.write(json.dumps(requests.answer(json.loads(line))) + "\n")
        answers.flush()


def _leave_with(parent: int) -> None:
    """Ends this process, also in the middle of a model that hangs, when its parent is no more."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class _Requests:
    """What can be asked, and the model that is open."""

    def __init__(self) -> None:
        self._session: Session | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer, or an error that is the user's to mend."""
        try:
            return getattr(self, request.pop("do"))(**request)
        except MeasurementError as error:
            return {"error": str(error)}

    def measure(
        self,
        candidate: str,
        baseline: str,
        runtime: dict[str, Any],
        baseline_runtime: dict[str, Any],
        effort: dict[str, Any],
        **more: Any,
    ) -> dict[str, Any]:
        """Two files' latency beside one another."""
        own = {"runtime": Runtime(**runtime), "baseline_runtime": Runtime(**baseline_runtime)}
        more["effort"] = Effort(**effort)
        return {"latency": asdict(measure_latency(Path(candidate), Path(baseline), **own, **more))}

    def check(self, single: str, batched: str, batch: int, runtime: dict[str, Any]) -> dict[str, Any]:
        """Why a file for ``batch`` pictures does not answer as that for one; empty if it does."""
        return {"why": why_no_batch(Path(single), Path(batched), batch, Runtime(**runtime))}

    def profile(
        self, candidate: str, baseline: str, runtime: dict[str, Any], images: str, **more: Any
    ) -> dict[str, Any]:
        """Two files' memory, throughput, and time from pictures in a file of arrays to answers."""
        with np.load(images) as found:
            own = {"runtime": Runtime(**runtime), "images": list(found.values())}
        return {"profile": asdict(profile_model(candidate=Path(candidate), baseline=Path(baseline), **own, **more))}

    def open(self, path: str, runtime: dict[str, Any]) -> dict[str, Any]:
        """Loads the model that is run from now on; says what it takes."""
        self._session = open_session(Path(path), Runtime(**runtime))
        return {
            "inputs": [
                {"name": item.name, "shape": item.shape, "dtype": item.dtype.str} for item in self._session.inputs
            ]
        }

    def run(self, folder: str, inputs: int) -> dict[str, Any]:
        """Runs the model on the files ``input-<i>.npy``, and writes ``output-<i>.npy``."""
        assert self._session is not None
        arrays = [np.load(Path(folder, f"input-{index}.npy")) for index in range(inputs)]
        found = self._session.run(arrays)
        for index, array in enumerate(found):
            np.save(Path(folder, f"output-{index}.npy"), array)
        return {"outputs": len(found)}


if __name__ == "__main__":
    _serve()
