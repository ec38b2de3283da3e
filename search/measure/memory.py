"""The memory that a model takes: a fresh process that loads and runs it, and nothing else.

    python -m search.measure.memory FILE '{"name": "onnxruntime", "provider": "cpu", "threads": 1}'

prints the number for ``peak_memory``.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median

from search.errors import MeasurementError
from search.runtimes.session import Runtime, checked, made_up
from search.runtimes.table import RUNTIMES, open_session

RUNS, PROCESSES = 3, 3
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
LONGEST = 120.0  # seconds


def peak_memory(path: Path, runtime: Runtime) -> float | None:
    """The memory that loading a model and running it three times adds to a process, in MB (10^6 bytes).

    It is the greatest resident size (VmHWM of /proc/self/status) of a fresh process from before the file is opened to
    after the last run, less its resident size before, when numpy and the runtime's package were imported; the median
    of three processes. So it has the file as it is read, its weights in each form that the runtime keeps, what it
    works with, and what the runtime sets up with its first model; it has not the interpreter, nor the libraries' code
    that was loaded before. Memory on a GPU is not in it. Where the system does not let a process reset its mark, a
    peak of the imports counts too. None where the system has no /proc.

    Raises:
        MeasurementError: a process failed or took two minutes.
    """
    return median(_peak_apart(path, runtime) for _ in range(PROCESSES)) if STATUS.is_file() else None


def _peak_apart(path: Path, runtime: Runtime) -> float:
    command = [sys.executable, "-m", "search.measure.memory", str(path), json.dumps(asdict(runtime))]
    longest = LONGEST + runtime.part.building
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=longest, check=False)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{path} did not run {RUNS} times in {longest:g} s, to measure its memory") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MeasurementError(f"{path} fails in a process of its own, to measure its memory: {last}")
    return float(done.stdout.split()[-1])


def _peak_here(path: Path, runtime: Runtime) -> float:
    importlib.import_module(RUNTIMES[runtime.name].module)
    with suppress(OSError):  # not everyone may
        RESET.write_text("5", encoding="ascii")  # the high-water mark starts anew: imports have left one
    before = _status("VmRSS")
    session = open_session(path, runtime)
    run = checked(session.bind(made_up(session, path, 0)), path)
    for _ in range(RUNS):
        run()
    return max(0.0, _status("VmHWM") - before)


def _status(name: str) -> float:
    """A field of /proc/self/status that is in kB, in MB."""
    [line] = [line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    print(_peak_here(Path(sys.argv[1]), Runtime(**json.loads(sys.argv[2]))))
