"""Whether a runtime really computes here: the smallest of models, measured as any other is."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from search.errors import MeasurementError
from search.measure.pairs import Effort
from search.measure.worker import Worker
from search.runtimes.session import Runtime

PATIENCE = 300.0  # seconds: a GPU's libraries are large, and TensorRT builds an engine
EFFORT = Effort(runs=2, seconds=1.0)


@cache
def why_not_run(runtime: Runtime) -> str:
    """Why a runtime that reads ONNX files runs none, in a child process as measurements have; empty if it does.

    It is asked once in a process.
    """
    python = None if runtime.environment else Path(sys.executable)
    with tempfile.TemporaryDirectory() as folder, Worker(runtime.environment, python=python) as worker:
        file = _smallest(Path(folder) / "smallest.onnx")
        request = {
            "do": "measure",
            "candidate": str(file),
            "baseline": str(file),
            "runtime": asdict(runtime),
            "baseline_runtime": asdict(runtime),
            "effort": asdict(EFFORT),
        }
        try:
            worker.ask(request, about=file, seconds=PATIENCE)
        except MeasurementError as error:
            return str(error).replace(f"{folder}/", "")
    return ""


def _smallest(path: Path) -> Path:
    """A convolution, since it is what needs most of a GPU's libraries."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "smallest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 3, 1, 1], [0.5] * 9)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
