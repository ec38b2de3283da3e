"""Ray Tune's controller with the real searcher, scheduler and recorder, and trials that sleep instead of training.

Each worker is an actor process, as in a real study, that sleeps for the time of a recorded trial, made shorter by a
stated factor, and reports what a recorded trial measured. So what is timed is the machinery: how long a worker
is idle between two trials, and how many trials a second the controller can hand out at most.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from search.engine.rungs import Rungs, RungSettings
from search.ray_study import prepare_environment
from search.record import Artifact, Measurement, Record
from search.scaling.lives import Life
from search.simulate.recorded import Recorded
from search.store import Store
from search.study import StudyConfig
from search.trial import Task
from spaces.recipe import Recipe
from spaces.starts import starting_recipes

NO_FILE = Artifact(path="simulated", sha256="", size_bytes=0)


@dataclass(frozen=True, kw_only=True)
class Sleep:
    """What a sleeping trial draws from: recorded lives, each lasting so many times shorter, and measurements."""

    lives: tuple[Life, ...]
    measured: tuple[Measurement, ...]
    shorter: float


@dataclass(frozen=True, kw_only=True)
class Driven:
    """How the controller drove so many sleeping workers; times in seconds.

    ``idle`` are the gaps between two trials of a worker. ``efficiency`` is the time asleep as a share of the time
    asleep and the gaps, without the start of the processes and the tail. ``driver_cpu`` is the driver's CPU time for
    each trial. ``full_length`` is the efficiency with the same gaps and trials as long as they were recorded.
    """

    workers: int
    trials: int
    shorter: float
    trial_seconds: float
    idle_p50: float
    idle_p95: float
    efficiency: float
    full_length: float
    trials_per_second: float
    suggestion: float
    driver_cpu: float


def sleeping(config: dict[str, Any], sleep: Sleep) -> None:
    """Ray Tune's function: a trial that sleeps through its life and reports at rungs and at its end."""
    from ray import tune

    begun = time.time()
    task = Task.model_validate_json(config["task"])
    own = random.Random(task.leaves[0].trunk_id)
    life = own.choice(sleep.lives)
    seconds = (life.before + life.train + life.after) / sleep.shorter / (life.rungs + 1)
    for rung in range(life.rungs):
        time.sleep(seconds)
        accuracy = own.uniform(0.3, 0.5)
        tune.report({"rung": _reported(task, sleep, own, "stopped", ((rung + 1, accuracy),), begun)})
    time.sleep(seconds)
    tune.report({"records": _reported(task, sleep, own, "complete", (), begun)})


def _reported(task: Task, sleep: Sleep, own: random.Random, state: Any, curve: Any, begun: float) -> str:
    """What the leaves of a task measured, drawn from recorded ones; which process it was, and from when to when."""
    seconds = {"process": float(os.getpid()), "begun": begun, "ended": time.time()}
    records = [_record(leaf, own.choice(sleep.measured), state, curve, seconds) for leaf in task.leaves]
    return json.dumps([record.model_dump(mode="json") for record in records])


def _record(leaf: Recipe, measured: Measurement, state: Any, curve: Any, seconds: dict[str, float]) -> Record:
    file = NO_FILE if state == "complete" else None
    return Record(
        id=leaf.id, recipe=leaf, state=state, artifact=file, measurement=measured, curve=curve, seconds=seconds
    )


class _Silent:
    """Nobody listens to the progress."""

    def trial_ended(self, recipe: Recipe, records: list[Record], reason: str) -> None:
        """Says nothing."""


def drive(recorded: Recorded, sleep: Sleep, *, workers: int, each: int) -> Driven:
    """A study of ``each`` trials for every worker, on a Ray of this machine that believes in so many CPUs."""
    prepare_environment()
    import ray

    config = recorded.config.model_copy(update={"warm_start": (), "rungs": recorded.config.rungs or RungSettings()})
    root = str(Path(__file__).resolve().parents[2])
    variables = {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    with tempfile.TemporaryDirectory(prefix="yolo-front-scaling-") as folder:
        store = Store(Path(folder))
        store.append([recorded.baseline])
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": variables},
        )
        try:
            cpu, wall = time.process_time(), time.monotonic()
            thinking = _search(config, store, sleep, workers=workers, trials=workers * each, folder=Path(folder))
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        finally:
            ray.shutdown()
        return _driven(store, sleep, workers=workers, thinking=thinking, cpu=cpu, wall=wall)


def _search(
    config: StudyConfig, store: Store, sleep: Sleep, *, workers: int, trials: int, folder: Path
) -> float:  # fmt: skip
    """Runs the study, set up as ``search.driver`` does it; returns the median seconds of a suggestion."""
    from ray import tune

    from search.recorder import Recorder
    from search.scheduler import HalvingScheduler
    from search.searcher import StrictOptunaSearch

    assert config.rungs is not None
    space = config.load_space()
    first = starting_recipes(space, image_size=config.image_size)
    searcher = StrictOptunaSearch(config, space, store, first=first, trials=trials, deadline=math.inf)
    tune.Tuner(
        tune.with_resources(tune.with_parameters(sleeping, sleep=sleep), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=HalvingScheduler(Rungs(config.rungs, config.objectives)),
            num_samples=-1,
            max_concurrent_trials=workers,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder / "tune"), callbacks=[Recorder(store, _Silent(), folder)], verbose=0
        ),
    ).fit()
    return float(searcher.summary()["suggestion_seconds"])


def _driven(store: Store, sleep: Sleep, *, workers: int, thinking: float, cpu: float, wall: float) -> Driven:
    spans = {record.recipe.trunk_id: record.seconds for record in store.searched}
    own: dict[float, list[tuple[float, float]]] = {}
    for span in spans.values():
        own.setdefault(span["process"], []).append((span["begun"], span["ended"]))
    asleep, gaps = gaps_of(list(own.values()))
    whole = float(np.mean([life.before + life.train + life.after for life in sleep.lives]))
    return Driven(
        workers=workers,
        trials=len(spans),
        shorter=sleep.shorter,
        trial_seconds=float(np.mean(asleep)),
        idle_p50=float(np.median(gaps)),
        idle_p95=float(np.quantile(gaps, 0.95)),
        efficiency=float(np.sum(asleep) / (np.sum(asleep) + np.sum(gaps))),
        full_length=float(whole / (whole + np.mean(gaps))),
        trials_per_second=len(spans) / wall,
        suggestion=thinking,
        driver_cpu=cpu / len(spans),
    )


def gaps_of(workers: Sequence[Sequence[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    """The lengths of trials that have one before them on their worker, and the gaps before these.

    Args:
        workers: for each worker the beginnings and ends of its trials.
    """
    asleep: list[float] = []
    gaps: list[float] = []
    for spans in workers:
        for (_, before), (begun, ended) in pairwise(sorted(spans)):
            asleep.append(ended - begun)
            gaps.append(begun - before)
    return asleep, gaps
