"""One exclusive slot for measuring latency: a Ray actor for each target, which takes one request at a time.

It runs on a node that offers the target's slot, a custom resource (``bench:onnxruntime-cpu``), so that a study can
train anywhere and still measure on the device that counts. Files travel with the request. Each study of a cluster has
actors of its own, with its own code and its own keys of the target; on one machine all of them take turns, by a lock
(search/measure/quiet.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from search.artifact import MeasureLatency
from search.errors import FaultError, MeasurementError, UnansweredError, UserError
from search.measure.apart import Apart
from search.measure.host import HostInfo
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.measure.parcel import Parcel, pack
from search.target import Target

WAITING = 3600.0  # seconds that a request waits for its answer, with those that are before it
SHARE = 0.01  # of a slot: it says where the actor may be, and is no lock, or a second study would wait for the first


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Bench:
    """Measures one candidate after the other, in a child process of its own.

    It holds no CPU of Ray's: the CPU-time ratio does not mind a neighbour, and where the wall clock counts, trainings
    on its node pause. If the actor dies, Ray starts it anew, on another node with the slot if need be, and makes the
    request again; if the child dies or hangs, the request fails and the next one has a new child.
    """

    def __init__(self, target: Target) -> None:
        self._apart = Apart(target)
        self._folder = tempfile.TemporaryDirectory(prefix="yolo-front-bench-")

    def host(self) -> HostInfo:
        """The machine that it measures on."""
        return self._apart.host

    def measure(self, candidate: Parcel, baseline: Parcel, effort: Effort) -> Latency:
        """The candidate's latency beside the baseline's; see ``Apart.measure``. Refusals name files without folders."""
        place = Path(self._folder.name)
        kept = place / baseline.sha256
        against = kept / baseline.name if kept.exists() else baseline.unpack(kept)
        with tempfile.TemporaryDirectory(dir=place) as folder:
            try:
                return self._apart.measure(candidate.unpack(Path(folder)), effort, baseline=against)
            except MeasurementError as error:
                raise MeasurementError(str(error).replace(f"{folder}/", "").replace(f"{kept}/", "")) from None


def start_bench(target: Target) -> Any:
    """Starts the actor of a target and returns its handle; it lives as long as the handle's driver.

    Raises:
        UserError: no node of the cluster offers the target's slot.
    """
    slot = target.slot
    if ray.cluster_resources().get(slot, 0) < 1:
        offered = sorted(name for name in ray.cluster_resources() if name.startswith("bench:"))
        raise UserError(
            f"no node of the cluster measures for {target.name}: start Ray on the device that counts with "
            f"--resources='{{\"{slot}\": 1}}'; nodes offer {', '.join(offered) or 'no bench at all'}"
        )
    return Bench.options(name=slot, get_if_exists=True, resources={slot: SHARE}).remote(target)


def start_benches(targets: Sequence[Target], *, needed: int) -> tuple[dict[str, Any], dict[str, MeasureLatency]]:
    """Starts the actors of targets; returns their handles by name, and for the others what refuses to time a file.

    Raises:
        UserError: no node of the cluster offers the slot of one of the first ``needed``.
    """
    benches: dict[str, Any] = {}
    refusals: dict[str, MeasureLatency] = {}
    for index, target in enumerate(targets):
        try:
            benches[target.name] = start_bench(target)
        except UserError as error:
            if index < needed:
                raise
            refusals[target.name] = partial(_refuse, error)
    return benches, refusals


def _refuse(error: UserError, file: Path, effort: Effort) -> Latency:
    raise error


def bench_host(target: Target) -> HostInfo:
    """The machine that the target's actor measures on.

    Raises:
        UnansweredError: no answer within the hour.
    """
    return cast(HostInfo, _answer(ray.get_actor(target.slot).host.remote(), target.slot))


def remote_latency(baseline: Path, target: Target, host: str) -> MeasureLatency:
    """A function (file, effort) that has the target's actor measure, waiting for its turn.

    Args:
        baseline: the file that it measures beside.
        target: whose actor it is.
        host: the id of the machine that the study is measured on.

    Raises:
        MeasurementError: from the function, as the actor does.
        UnansweredError: from the function: no answer within the hour.
        FaultError: from the function: the actor was started anew, on a machine that cannot be compared.
    """
    bench, reference = ray.get_actor(target.slot), ray.put(pack(baseline))

    def measure(file: Path, effort: Effort) -> Latency:
        latency = cast(Latency, _answer(bench.measure.remote(pack(file), reference, effort), target.slot))
        if latency.host != host:
            raise FaultError(
                f"{target.slot} measures on another machine now ({latency.host}, before {host}), and their latencies "
                "cannot be compared: let no machine but the first one offer it, then go on with "
                "`python -m search resume`"
            )
        return latency

    return measure


def _answer(pending: Any, slot: str) -> Any:
    """What an actor answers; what it raises, without its traceback in the text."""
    try:
        return ray.get(pending, timeout=WAITING)
    except GetTimeoutError as error:
        ray.cancel(pending)
        raise UnansweredError(
            f"{slot} gave no answer in {WAITING:g} s: see that its node is there, then go on with "
            "`python -m search resume`"
        ) from error
    except RayTaskError as error:
        raise error.cause from None
