"""Pictures a second of a pipeline, beside other ways to use as many cores: all in short turns, one after the other.

Every rival is the same code, processes that are fed through shared memory: one process a stage, one process with as
many threads, or as many processes that each run the whole model.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.measure.ratio import paired_ratio
from search.split.cut import split_model
from search.split.runner.pipeline import Device, Outputs, Pipeline, devices_of, read_about

TURNS = 16
SECONDS = 1.0  # of a turn
ALONE = 5  # pictures a turn that go through one by one


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Some processes and what was seen of them: a turn each of pictures a second, ms for one picture alone, and for
    each process the CPU time of a picture in ms."""

    pipelines: Sequence[Pipeline]
    rates: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    busy: list[list[float]] = field(default_factory=list)


def compare(path: Path, folder: Path, *, turns: int = TURNS, seconds: float = SECONDS, seed: int = 0) -> dict[str, Any]:
    """Times the stages in ``folder`` beside the whole model on the same cores.

    Args:
        path: the model that was split.
        folder: what ``split_model`` made of it.
        turns: of each rival; they follow one another, in another order each time.
        seconds: of a turn.
        seed: of the picture.

    Returns:
        For ``pipeline``, ``threads`` (one process), ``replicas`` (a process each core) and ``single`` (one process on
        one core): pictures a second, ms from picture to answer alone, CPU ms a picture of each process (medians), and
        the pictures a second that this CPU time allows on cores without other work (not of several threads, whose CPU
        time does not tell how long they wait for one another); and ``ratios``, the pipeline's pictures a second over
        the others', with their 95 % intervals.

    Raises:
        MeasurementError: a stage is to run on a GPU: rivals would need as many.
    """
    devices = devices_of(read_about(folder))
    if any(device.provider != "cpu" for device in devices):
        raise MeasurementError("only stages on the CPU can be timed beside other uses of the same cores")
    cores = tuple(sorted({core for device in devices for core in device.cores}))
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        one = Path(place) / "one"
        split_model(path, 1, one, seed=seed)

        def started(source: Path, *on: Device) -> Pipeline:
            return stack.enter_context(Pipeline(source, on))

        rivals = {
            "pipeline": Rival(pipelines=[started(folder, *devices)]),
            "threads": Rival(pipelines=[started(one, Device(cores=cores))]),
            "replicas": Rival(pipelines=[started(one, device) for device in devices]),
            "single": Rival(pipelines=[started(one, devices[0])]),
        }
        picture = _picture(rivals["pipeline"].pipelines[0], seed)
        order = list(rivals.values())
        for turn in range(turns):
            for rival in order[turn % len(order) :] + order[: turn % len(order)]:
                _take_turn(rival, picture, seconds)
    return _told(rivals)


def _picture(pipeline: Pipeline, seed: int) -> list[NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return [rng.random(item["shape"]).astype(item["dtype"]) for item in pipeline.about["borders"][0]]


def _take_turn(rival: Rival, picture: list[NDArray[Any]], seconds: float) -> None:
    processes = [psutil.Process(pid) for pipeline in rival.pipelines for pid in pipeline.pids]
    for pipeline in rival.pipelines:
        pipeline.run(picture)  # warm
    for _ in range(ALONE):
        start = time.perf_counter()
        rival.pipelines[0].run(picture)
        rival.alone.append(1000 * (time.perf_counter() - start))
    before = [_cpu(process) for process in processes]
    with ThreadPoolExecutor(len(rival.pipelines)) as pool:
        done = list(pool.map(lambda pipeline: _keep_full(pipeline, picture, seconds), rival.pipelines))
    rival.rates.append(sum((len(times) - 1) / (times[-1] - times[0]) for times in done))
    each = [len(times) for times, pipeline in zip(done, rival.pipelines, strict=True) for _ in pipeline.pids]
    rival.busy.append(
        [1000 * (_cpu(process) - old) / count for process, old, count in zip(processes, before, each, strict=True)]
    )


def _keep_full(pipeline: Pipeline, picture: list[NDArray[Any]], seconds: float) -> list[float]:
    """When each picture was answered, while as many were in the pipeline as it takes."""
    times: list[float] = []
    waiting: deque[Future[Outputs]] = deque()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 2:
        waiting.append(pipeline.submit(picture))
        waiting[-1].add_done_callback(lambda _: times.append(time.perf_counter()))
        while waiting and waiting[0].done():
            waiting.popleft().result()
    for future in waiting:
        future.result()
    return times


def _cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def _told(rivals: dict[str, Rival]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, rival in rivals.items():
        busy = [float(value) for value in np.median(rival.busy, axis=0)]
        alike = {"pipeline": [max(busy)], "threads": []}.get(name, busy)  # every picture goes through each stage
        result[name] = {
            "pictures_per_s": float(np.median(rival.rates)),
            "pictures_per_s_by_cpu": sum(1000 / value for value in alike if value) or None,
            "alone_ms_p50": float(np.median(rival.alone)),
            "cpu_ms": busy,
        }
    ours = 1 / np.array(rivals["pipeline"].rates)
    turns = range(len(ours))
    result["ratios"] = {
        name: paired_ratio(1 / np.array(rival.rates), ours, turns)
        for name, rival in rivals.items()
        if name != "pipeline"
    }
    return result
