"""Runs a study on Ray Tune, from an empty folder to a front, and goes on where it was cut off.

``records.jsonl`` is the only truth. Tune's own snapshot is neither read nor kept: a resumed study is a new Tuner
whose searcher knows every record, with the trials that were in flight handed out first.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from search.cache import STAGES
from search.errors import UserError
from search.finish import finish
from search.record import Record
from search.store import Records, Store, locked, write_atomically
from search.study import Resources, StudyConfig
from spaces.recipe import Recipe
from spaces.space import Space
from spaces.starts import starting_recipes

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
WORKER_VARIABLES = ("YOLO_CONFIG_DIR", "YOLO_OFFLINE", "YOLO_VERBOSE", "MPLBACKEND")


class Progress(Protocol):
    """What wants to hear how a study goes on."""

    def stage(self, text: str) -> None:
        """A new step of the study begins."""

    def trial_ended(self, recipe: Recipe, records: list[Record], reason: str) -> None:
        """A trial ended and its records are stored; ``reason`` says why it broke, if it did."""


def run_study(config: StudyConfig, folder: Path, progress: Progress) -> Store:
    """Runs ``config`` in ``folder`` to its end and returns the records.

    Raises:
        UserError: the folder holds a study already, or is in use, or the study cannot be prepared.
    """
    if (folder / "study.yaml").exists():
        raise UserError(f"{folder} holds a study already; go on with `python -m search resume {folder}`")
    from search.prepare import check_model

    check_model(config)
    with locked(folder):
        write_atomically(folder / "study.yaml", config.to_yaml())
        return _run(config, folder, progress)


def resume_study(config: StudyConfig, folder: Path, progress: Progress) -> Store:
    """Goes on with the study in ``folder``: no finished record is lost or made again."""
    with locked(folder):
        return _run(config, folder, progress)


def finish_study(config: StudyConfig, folder: Path, progress: Progress) -> Store:
    """Measures the front of the study in ``folder`` again and writes the report; nothing is searched."""
    from search.prepare import prepare

    with locked(folder):
        folder, store = folder.resolve(), Store(folder)
        place = prepare(config, folder, store, threads=max(1, int(config.resources.cpus_per_trial)))
        progress.stage("measuring the front and writing the report")
        finish(config, folder, store, place)
        return store


def _run(config: StudyConfig, folder: Path, progress: Progress) -> Store:
    os.environ.update({name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ})
    from search.prepare import prepare

    folder = folder.resolve()
    store, space = Store(folder), config.load_space()
    started = time.monotonic()
    progress.stage("preparing the data and the baseline")
    place = prepare(config, folder, store, threads=max(1, int(config.resources.cpus_per_trial)))
    first = in_flight(store, space, leaves=config.engine.leaves)
    if config.engine.starts and not store.searched and not first:
        first = starting_recipes(space, image_size=config.image_size)
    unfinished = {recipe.trunk_id for recipe in first}
    ended = len({record.recipe.trunk_id for record in store.searched} - unfinished)
    trials = None if config.budget.trials is None else max(0, config.budget.trials - ended)
    minutes = config.budget.minutes
    deadline = math.inf if minutes is None else started + 60 * minutes
    if trials != 0:
        progress.stage(f"searching {space.name}")
        from search.searcher import StrictOptunaSearch

        searcher = StrictOptunaSearch(config, space, store, first=first, trials=trials, deadline=deadline)
        _search(config, folder, store, searcher, place, progress)
        write_atomically(folder / "engine.json", json.dumps(searcher.summary(), indent=2) + "\n")
    progress.stage("measuring the front and writing the report")
    finish(config, folder, store, place)
    return store


def in_flight(store: Records, space: Space, *, leaves: bool = True) -> list[Recipe]:
    """The recipes that were handed out and have a leaf without a record, oldest first, one for each trunk.

    ``leaves`` says whether the study measures every leaf of a trunk, or the one that was handed out.
    """
    started = {entry.recipe.trunk_id: entry.recipe for entry in store.started}.values()
    asked = ((recipe, space.leaves(recipe) if leaves else [recipe]) for recipe in started)
    return [recipe for recipe, own in asked if any(leaf.id not in store.records for leaf in own)]


def _search(config: StudyConfig, folder: Path, store: Store, searcher: Any, place: Any, progress: Progress) -> None:
    import ray
    from ray import tune

    from search.measure.bench import start_bench
    from search.recorder import Recorder
    from search.trial import trainable

    _clear(folder / "cache")
    _start_ray()
    bench = start_bench()
    resources = config.resources
    concurrent = resources.concurrent or fitting(ray.cluster_resources(), resources)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(trainable, place=place),
            {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_scheduler(config, store),
            num_samples=-1,  # the searcher ends the search itself
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder / "cache"),
            callbacks=[Recorder(store, progress)],
            failure_config=tune.FailureConfig(max_failures=config.resources.retries),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        ray.kill(bench)
        ray.shutdown()
        _clear(folder / "cache")


def _scheduler(config: StudyConfig, store: Store) -> Any:
    """Stops trials at rungs, if the study has any; what ended before counts as seen there."""
    from search.engine.rungs import Rungs
    from search.scheduler import HalvingScheduler

    if config.rungs is None:
        return None
    return HalvingScheduler(Rungs.from_records(config.rungs, config.objectives, store.searched))


def _clear(cache: Path) -> None:
    """Removes what trials and Tune left, also those that were killed; results of stages stay."""
    for entry in cache.iterdir():
        if entry.is_dir() and entry.name != STAGES:
            shutil.rmtree(entry, ignore_errors=True)


def _start_ray() -> None:
    """Joins the cluster that RAY_ADDRESS names, as a job has it, or starts Ray on this machine."""
    import ray

    variables = {name: os.environ[name] for name in WORKER_VARIABLES if name in os.environ}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"),
        include_dashboard=None if "RAY_ADDRESS" in os.environ else False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": variables},
    )


def fitting(total: Mapping[str, float], resources: Resources) -> int:
    """How many trials a cluster with ``total`` resources holds at once.

    Raises:
        UserError: not even one.
    """
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    fits = [total.get("CPU", 0) / cpus] + ([total.get("GPU", 0) / gpus] if gpus else [])
    if min(fits) + 1e-9 < 1:
        raise UserError(
            f"resources: a trial asks for {cpus:g} CPUs and {gpus:g} GPUs, but there are "
            f"{total.get('CPU', 0):g} and {total.get('GPU', 0):g}; lower resources.cpus_per_trial or gpus_per_trial"
        )
    return int(min(fits) + 1e-9)  # 2 / 0.1 is a little less than 20
