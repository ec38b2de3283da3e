"""One stage of a pipeline, in a process of its own: started by pipeline.py, beside which it lies.

    python stage.py '{"model": …}'

A message comes in for every picture, in order: empty when its tensors lie in the ring before this stage, else what
went wrong with it earlier. When the stage has written its own tensors into the ring behind it, it sends one on. The
first message is about loading alone. A closed end on either side ends the process, so that a pipeline of which any
process died, its caller too, ends as a whole. Needs numpy and onnxruntime only.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]
ALIGNED = 64  # bytes
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Ring:
    """Shared memory for some pictures between two stages.

    Attributes:
        slots: of each the tensors by name, arrays on the memory itself.
    """

    def __init__(self, memory: int, tensors: Sequence[dict[str, Any]], slots: int) -> None:
        """Maps the file ``memory``, made large enough, for tensors with ``name``, ``shape`` and ``dtype``."""
        sizes = [int(np.prod(item["shape"])) * np.dtype(item["dtype"]).itemsize for item in tensors]
        places = [-(-size // ALIGNED) * ALIGNED for size in sizes]
        os.ftruncate(memory, max(1, slots * sum(places)))
        self._mapped = mmap.mmap(memory, 0)
        self.slots: list[Tensors] = []
        for slot in range(slots):
            offsets = slot * sum(places) + np.cumsum([0, *places])
            self.slots.append(
                {
                    item["name"]: np.ndarray(item["shape"], item["dtype"], self._mapped, int(offset))
                    for item, offset in zip(tensors, offsets[:-1], strict=True)
                }
            )


def main(given: dict[str, Any]) -> int:
    """Runs a stage to its end; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of a terminal's processes; the caller ends us
    source = Connection(given["source"], writable=False)
    sink = Connection(given["sink"], readable=False)
    before = Ring(given["before"], given["inputs"], given["slots"])
    behind = Ring(given["behind"], given["outputs"], given["slots"])
    try:
        run, failed = _load(given), b""
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no base class of their own
        run, failed = None, _told(given, error)
    try:
        failed = source.recv_bytes() or failed
        sink.send_bytes(failed)
        if run is None or failed:
            return 0
        for number in count():
            slot = number % given["slots"]
            failed = source.recv_bytes()
            if not failed:
                try:
                    run(before.slots[slot], behind.slots[slot])
                except Exception as error:  # noqa: BLE001 - as above
                    failed = _told(given, error)
            sink.send_bytes(failed)
    except (EOFError, ConnectionError):
        pass
    return 0


def _told(given: dict[str, Any], error: Exception) -> bytes:
    return f"{given['about']}: {' '.join(str(error).split())}".encode()


def _load(given: dict[str, Any]) -> Callable[[Tensors, Tensors], None]:
    """What computes a stage's outputs from its inputs; results go straight to where they are to lie."""
    session = _open(given)
    taken = [item.name for item in session.get_inputs()]
    made = [item.name for item in session.get_outputs()]
    passed = [item["name"] for item in given["outputs"] if item["name"] not in made]

    def run(inputs: Tensors, outputs: Tensors) -> None:
        binding = session.io_binding()
        for name in taken:
            binding.bind_cpu_input(name, inputs[name])  # of a GPU this is the copy to it
        for name in made:
            to = outputs[name]
            binding.bind_output(name, "cpu", 0, to.dtype.type, to.shape, to.ctypes.data)
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        for name in passed:
            np.copyto(outputs[name], inputs[name])

    return run


def _open(given: dict[str, Any]) -> Any:
    """The stage's session on its device: every optimisation, operators in turn, nothing spins."""
    runtime: Any = onnxruntime  # it has no type stubs
    cores = given["cores"]
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads, options.inter_op_num_threads = max(1, len(cores)), 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    provider, settings = PROVIDERS[given["provider"]], {}
    if given["provider"] == "cuda":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # all of it there, or an error
        settings = {"device_id": str(given["device"]), "use_tf32": "0"}
    if provider not in runtime.get_available_providers():
        raise RuntimeError(f"ONNX Runtime {runtime.__version__} has no {provider} here")
    session = runtime.InferenceSession(given["model"], options, providers=[(provider, settings)])
    if provider not in session.get_providers():
        raise RuntimeError(f"ONNX Runtime {runtime.__version__} cannot load its {provider}")
    return session


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
