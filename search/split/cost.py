"""What each node of an ONNX file costs here, and which tensors ONNX Runtime really makes.

Costs are times by ONNX Runtime's own profiler, not counted operations: an activation, a softmax or a convolution in
int8 takes many times longer for an operation than a large convolution in float, and differently so on each machine.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from search.errors import UserError

_ort: Any = onnxruntime  # it has no type stubs
RUNS = 40
QUANTILE = 0.25  # of a node's times, as in search/measure/ratio.py
_MARK = re.compile(r"@(\d+)@")


def _marked(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy in which nodes and tensors are named after the place of their node, and the old names of the tensors.

    ONNX Runtime names what it makes of nodes after one of them, or after its output.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    fixed = {entry.name for entry in copy.graph.output} | {""}
    new: dict[str, str] = {}
    for index, node in enumerate(copy.graph.node):
        node.name = f"@{index}@"
        new |= {name: f"@{index}@{number}" for number, name in enumerate(node.output) if name not in fixed}
    for node in copy.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    return copy, {marked: name for name, marked in new.items()}


def _optimised(model: onnx.ModelProto, level: str, folder: Path, *, profile: bool) -> tuple[Any, onnx.ModelProto]:
    options = _ort.SessionOptions()
    options.graph_optimization_level = getattr(_ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.enable_profiling = profile
    options.profile_file_prefix = str(folder / "profile")
    try:
        session = _ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
        raise UserError(f"ONNX Runtime {_ort.__version__} refuses the model: {error}; export it again") from error
    return session, onnx.load(folder / "optimised.onnx")


def whole_tensors(model: onnx.ModelProto) -> set[str]:
    """The tensors that are still there when ONNX Runtime has fused nodes; a cut at another would undo a fusion.

    Layouts are not looked at (they change nearly every name): a cut costs a change of layout at most.
    """
    marked, names = _marked(model)
    with tempfile.TemporaryDirectory() as folder:
        _, graph = _optimised(marked, "EXTENDED", Path(folder), profile=False)
    there = {name for node in graph.graph.node for name in node.output}
    return {names.get(name, name) for name in there}


def node_seconds(model: onnx.ModelProto, inputs: dict[str, NDArray[Any]], runs: int = RUNS) -> NDArray[np.float64]:
    """The time of each node of the file, shape (nodes,), in seconds, on one thread with every optimisation.

    A fused node's time is with the node that it is named after. What ONNX Runtime puts in, such as changes of layout,
    is with the node before it.
    """
    marked, _ = _marked(model)
    with tempfile.TemporaryDirectory() as folder:
        session, graph = _optimised(marked, "ALL", Path(folder), profile=True)
        for _ in range(runs):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    outputs = {node.name: list(node.output) for node in graph.graph.node if node.name}
    times: defaultdict[str, list[float]] = defaultdict(list)
    owner: dict[str, int] = {}
    last = 0
    for event in events:
        if not event["name"].endswith("_kernel_time"):
            continue
        name, key = event["name"].removesuffix("_kernel_time"), event["args"]["node_index"]
        found = next((match for text in (name, *outputs.get(name, ())) if (match := _MARK.search(text))), None)
        last = int(found[1]) if found else owner.get(key, last)
        owner.setdefault(key, last)
        times[key].append(event["dur"] / 1e6)
    seconds = np.zeros(len(model.graph.node))
    for key, values in times.items():
        seconds[owner[key]] += np.quantile(values, QUANTILE)
    return seconds
