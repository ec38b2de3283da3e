"""Ray for one study: joined or started, with a bench for each target, and left behind as it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from search.artifact import MeasureLatency
from search.hosts import note_hosts
from search.measure.latency import last_cores
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
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
CORES = "YOLO_FRONT_TRAINING_CORES"  # of workers on the driver's machine
SPARE = 4
WORKER_VARIABLES = ("YOLO_CONFIG_DIR", "YOLO_OFFLINE", "YOLO_VERBOSE", "MPLBACKEND")


def training_cores(targets: Sequence[Target]) -> list[int]:
    """The cores of this machine that trials keep to, away from those that measurements are pinned to.

    Empty, which is all, where a machine has fewer than four cores to spare, or says nothing of cores.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    measuring = {core for target in targets for core in target.cores or last_cores(target.threads)}
    rest = [core for core in usable if core not in measuring]
    return rest if len(rest) >= SPARE and len(rest) < len(usable) else []


def keep_to_cores() -> None:
    """Keeps this worker to the cores for trials, if the driver set any apart."""
    if text := os.environ.get(CORES):
        os.sched_setaffinity(0, [int(core) for core in text.split(",")])


def prepare_environment() -> None:
    """Sets what Ray reads when it is imported, where the user has not."""
    os.environ.update({name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ})


@contextmanager
def ray_with_benches(
    targets: Sequence[Target], folder: Path, store: Store, place: Workplace
) -> Generator[dict[str, MeasureLatency]]:
    """Yields what times a file on each target, by its name; the baseline is measured if it was not.

    Raises:
        UserError: no node measures for a target, or it is another machine than the study was begun on.
    """
    import ray

    from search.measure.bench import remote_latency, start_bench
    from search.prepare import measured_baseline

    _start_ray(targets)
    try:
        benches = {target.name: start_bench(target) for target in targets}
        hosts = ray.get([bench.host.remote() for bench in benches.values()])
        note_hosts(folder, store, dict(zip(benches, hosts, strict=True)))
        latency_on = {target.name: remote_latency(place.baseline(target), target) for target in targets}
        if store.baseline is None:
            store.append([measured_baseline(place, latency_on)])
        yield latency_on
    finally:
        ray.shutdown()


def _start_ray(targets: Sequence[Target]) -> None:
    """Joins the cluster that RAY_ADDRESS names, as a job has it, or starts Ray on this machine, which measures too."""
    import ray

    variables = {name: os.environ[name] for name in WORKER_VARIABLES if name in os.environ}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    joins = "RAY_ADDRESS" in os.environ
    cores = [] if joins else training_cores(targets)
    if cores:
        variables[CORES] = ",".join(map(str, cores))
    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"),
        include_dashboard=None if joins else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        num_cpus=len(cores) if cores else None,
        resources=None if joins else {target.slot: 1 for target in targets},
        runtime_env={"env_vars": variables},
    )
