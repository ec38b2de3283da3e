"""Ray for one study: joined or started, with a bench for each target, and left behind as it was."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.artifact import MeasureLatency
from search.cores import training_cores
from search.errors import UserError
from search.hosts import note_hosts
from search.placement import bundle, fitting, refusal
from search.resources import Resources
from search.store import Store
from search.target import Target
from search.workplace import Workplace

ROOT = Path(__file__).resolve().parent.parent

# Set before ray is imported. Nothing is sent home, Tune writes no log files of its own for each trial, and a
# trial works in the driver's directory.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # a worker that yields to everyone measures its neighbours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the searcher hands out no more than fit
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
LOOK = 1.0  # seconds between two looks at the cluster's nodes
PATIENCE = 600.0  # seconds that a search waits for a node that holds a trial
WORKER_VARIABLES = ("YOLO_CONFIG_DIR", "YOLO_OFFLINE", "YOLO_VERBOSE", "MPLBACKEND")


def prepare_environment() -> None:
    """Sets what Ray reads when it is imported, where the user has not."""
    os.environ.update({name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ})


class Room:
    """How many trials the cluster holds at once, as it is now: nodes come and go.

    Args:
        resources: what a trial takes, and how many are wanted at most.
        patience: seconds without a node for even one before it is given up.
    """

    def __init__(self, resources: Resources, patience: float = PATIENCE) -> None:
        self._resources, self._patience = resources, patience
        self._looked, self._held, self._last = -math.inf, 0, time.monotonic()

    def __call__(self) -> int:
        """The number.

        Raises:
            UserError: there was no node for a trial for longer than ``patience``.
        """
        now = time.monotonic()
        if now - self._looked > LOOK:
            nodes = alive_nodes()
            self._looked, self._held = now, fitting(nodes, self._resources)
            if self._held:
                self._last = now
            elif now - self._last >= self._patience:
                raise refusal(nodes, self._resources)
        return min(self._held, self._resources.concurrent or self._held)


def alive_nodes() -> list[dict[str, float]]:
    """What each node of the cluster has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def trials_on_ray(resources: Resources, place: Workplace) -> Generator[Room]:
    """Yields what says how many trials fit, while the cluster is ready for them.

    An autoscaler, if there is one, is asked for ``concurrent`` of them, and nodes that do not see the study folder can
    ask for what they need.

    Raises:
        UserError: no node holds a trial, and no autoscaler can be expected to change that.
    """
    if "RAY_ADDRESS" not in os.environ:
        Room(resources, patience=0)()
        yield Room(resources)
        return
    from search.depot import depot_for

    if resources.concurrent is None:
        Room(resources, patience=0)()
    check_nodes((place.target, *place.others), resources)
    with _asked_for(resources), depot_for(place):
        yield Room(resources)


@contextmanager
def _asked_for(resources: Resources) -> Generator[None]:
    """Asks the autoscaler for as many trials as the study wants at once, until the end; without one, nobody hears it.

    A cluster has one such request at a time, the last one.
    """
    from ray.autoscaler.sdk import request_resources

    if resources.concurrent is None:
        yield
        return
    request_resources(bundles=[bundle(resources)] * resources.concurrent)
    try:
        yield
    finally:
        request_resources(bundles=[])


def check_nodes(targets: Sequence[Target], resources: Resources) -> None:
    """Refuses a cluster with a node that gets trials and cannot see how accurate their files are.

    Raises:
        UserError: which node, and what it lacks.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from search.measure.target_checks import lacking

    ask: Any = ray.remote(num_cpus=0)(lacking)
    answers = {
        node["NodeManagerAddress"]: ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        ).remote(targets)
        for node in ray.nodes()
        if node["Alive"] and fitting([node["Resources"]], resources)
    }
    for address, answer in answers.items():
        if reason := ray.get(answer):
            raise UserError(
                f"node {address} would run trials, but {reason}; or keep trials off it with resources.custom"
            )


@contextmanager
def ray_with_benches(
    targets: Sequence[Target], folder: Path, store: Store, place: Workplace, *, searching: bool = True
) -> Generator[tuple[Workplace, dict[str, MeasureLatency]]]:
    """Yields the place, which knows who measures, and what times a file on each target, by its name; the baseline is
    measured if it was not.

    To measure fronts again only the main target is needed: on another one that no node measures for, it refuses.

    Raises:
        UserError: no node measures for a target that is needed, or it is another machine than the study was begun on.
    """
    import ray

    from search.measure.bench import bench_host, remote_latency, start_benches
    from search.prepare import measured_baseline

    _start_ray(targets)
    try:
        benches, refusals = start_benches(targets, needed=len(targets) if searching else 1)
        own = [target for target in targets if target.name in benches]  # an actor goes with the last handle
        hosts = {target.name: bench_host(target) for target in own}
        note_hosts(folder, store, hosts)
        place = replace(place, hosts={name: host.id for name, host in hosts.items()})
        latency_on = refusals | {t.name: remote_latency(place.baseline(t), t, place.hosts[t.name]) for t in own}
        if store.baseline is None:
            store.append([measured_baseline(place, latency_on)])
        yield place, latency_on
        del benches
    finally:
        ray.shutdown()


def _start_ray(targets: Sequence[Target]) -> None:
    """Joins the cluster that RAY_ADDRESS names, as a job has it, or starts Ray on this machine, which measures too."""
    import ray

    variables = {name: os.environ[name] for name in WORKER_VARIABLES if name in os.environ}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    joins = "RAY_ADDRESS" in os.environ
    cores = [] if joins else training_cores(targets)
    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"),
        include_dashboard=None if joins else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        num_cpus=len(cores) if cores else None,
        resources=None if joins else {target.slot: 1 for target in targets},
        runtime_env={"env_vars": variables},
    )
