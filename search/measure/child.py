"""The child process of ``search.measure.apart``: one JSON request a line on its standard input, one answer a line back.

It may run in an environment that has little more than numpy and a runtime, so nothing else is imported here.
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
from search.measure.latency import measure_latency
from search.measure.pairs import Effort
from search.measure.profile import profile_model
from search.runtimes.session import Runtime


def _serve() -> None:
    """Answers requests until standard input ends, or the parent does."""
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a runtime prints is no answer
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _leave_with(parent: int) -> None:
    """Ends this process, also in the middle of a model that hangs, when its parent is no more."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    request |= {name: Path(request[name]) for name in ("candidate", "baseline")}
    request["runtime"] = Runtime(**request["runtime"])
    try:
        if request.pop("kind", "latency") == "profile":
            with np.load(request["images"]) as images:
                request["images"] = list(images.values())
            return {"profile": asdict(profile_model(**request))}
        request["effort"] = Effort(**request["effort"])
        return {"latency": asdict(measure_latency(**request))}
    except MeasurementError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    _serve()
