"""Runs a study on Ray Tune, from an empty folder to a front, and goes on where it was cut off.

``records.jsonl`` is the only truth. Tune's own snapshot is neither read nor kept: a resumed study is a new Tuner
whose searcher knows every record, with the trials that were in flight handed out first.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.cache import STAGES
from search.errors import UserError
from search.faults import mark, sees, watched
from search.finish import finish
from search.live.tracker import Display, Tracker
from search.ray_study import prepare_environment, ray_with_benches, trials_on_ray
from search.storage.hold import held
from search.store import Records, Store, write_atomically
from search.study import StudyConfig
from spaces.recipe import Recipe
from spaces.space import Space
from spaces.starts import starting_recipes

TUNE = "tune"  # Ray Tune's folder in the cache


def run_study(config: StudyConfig, folder: Path, display: Display) -> Store:
    """Runs ``config`` in ``folder`` to its end and returns the records.

    Raises:
        UserError: the folder holds a study already, or is in use, or the study cannot be prepared.
    """
    if (folder / "study.yaml").exists():
        raise UserError(f"{folder} holds a study already; go on with `python -m search resume {folder}`")
    from search.prepare import check_model

    check_model(config)
    with held(folder, config):
        with watched([folder]):
            write_atomically(folder / "study.yaml", config.to_yaml())
        return _run(config, folder, display)


def resume_study(config: StudyConfig, folder: Path, display: Display) -> Store:
    """Goes on with the study in ``folder``: no finished record is lost or made again."""
    with held(folder, config):
        return _run(config, folder, display)


def finish_study(config: StudyConfig, folder: Path, display: Display) -> Store:
    """Measures the front of the study in ``folder`` again and writes the report; nothing is searched."""
    with held(folder, config):
        return _run(config, folder, display, trials=0)


def _run(config: StudyConfig, folder: Path, display: Display, trials: int | None = None) -> Store:
    """``trials`` is how many to hand out at most, what the budget leaves if it is not given."""
    folder = folder.resolve()
    store = Store(folder)
    with Tracker(config, folder, store, display) as progress:
        _work(config, folder, store, progress, trials)
    return store


def _work(config: StudyConfig, folder: Path, store: Store, progress: Tracker, trials: int | None) -> None:
    prepare_environment()
    with watched([folder]):
        token = mark(folder)
        try:
            with watched([folder], token):
                _prepared(config, folder, store, token, progress, trials)
        finally:
            _leave(folder, token)


def _prepared(
    config: StudyConfig, folder: Path, store: Store, token: str, progress: Tracker, trials: int | None
) -> None:
    """Prepares the study, and runs it if all is there."""
    from search.prepare import prepare

    space = config.load_space()
    minutes = config.budget.minutes
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    progress.stage("preparing the data and the baseline")
    place = replace(prepare(config, folder, threads=max(1, int(config.resources.cpus_per_trial))), token=token)
    first = in_flight(store, space, leaves=config.engine.leaves)
    if config.engine.starts and not store.searched and not first:
        first = starting_recipes(space, image_size=config.image_size)
    trials = _trials_left(config, store, first) if trials is None else trials
    _clear(folder / "cache")
    with ray_with_benches(config.targets, folder, store, place, searching=trials != 0) as (place, latency_on):
        if trials != 0:
            progress.stage(f"searching {space.name}")
            from search.searcher import StrictOptunaSearch

            limit = None if trials < 0 else trials
            with trials_on_ray(config.resources, place) as room:
                searcher = StrictOptunaSearch(
                    config, space, store, first=first, trials=limit, deadline=deadline, room=room
                )
                _search(config, folder, store, searcher, place, progress)
            write_atomically(folder / "engine.json", json.dumps(searcher.summary(), indent=2) + "\n")
        progress.stage("measuring the front and writing the report")
        finish(config, folder, store, place, latency_on, progress.tell)


def _trials_left(config: StudyConfig, store: Records, first: list[Recipe]) -> int:
    """How many trials the budget leaves; -1 if it does not limit them. Those in flight did not end."""
    if config.budget.trials is None:
        return -1
    unfinished = {recipe.trunk_id for recipe in first}
    ended = len({record.recipe.trunk_id for record in store.searched} - unfinished)
    return max(0, config.budget.trials - ended)


def in_flight(store: Records, space: Space, *, leaves: bool = True) -> list[Recipe]:
    """The recipes that were handed out and have a leaf without a record, oldest first, one for each trunk.

    ``leaves`` says whether the study measures every leaf of a trunk, or the one that was handed out.
    """
    started = {entry.recipe.trunk_id: entry.recipe for entry in store.started}.values()
    asked = ((recipe, space.leaves(recipe) if leaves else [recipe]) for recipe in started)
    return [recipe for recipe, own in asked if any(leaf.id not in store.records for leaf in own)]


def _search(config: StudyConfig, folder: Path, store: Store, searcher: Any, place: Any, progress: Tracker) -> None:
    """Raises FaultError: a folder of the study is full or gone."""
    from ray import tune

    from search.live.board import start_board
    from search.placement import bundle
    from search.ray_trial import trainable
    from search.recorder import Recorder

    recorder = Recorder(store, progress, folder, place.token)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(trainable, place=place),
            tune.PlacementGroupFactory([bundle(config.resources)]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=_scheduler(config, store),
            num_samples=-1,  # the searcher ends the search itself, and hands out no more trials than there is room for
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=TUNE,
            storage_path=str(folder / "cache"),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=config.resources.retries),
            verbose=0,
        ),
    )
    with progress.listening(start_board()):
        tuner.fit()
    if recorder.fault is not None:  # of the last trial
        raise recorder.fault


def _scheduler(config: StudyConfig, store: Store) -> Any:
    """Stops trials at rungs, if the study has any; what ended before counts as seen there."""
    from search.engine.rungs import Rungs
    from search.scheduler import HalvingScheduler, NewestFirst

    if config.rungs is None:
        return NewestFirst()
    return HalvingScheduler(Rungs.from_records(config.rungs, config.objectives, store.searched))


def _leave(folder: Path, token: str) -> None:
    """Clears up, in the study folder alone: where that is gone, Tune has begun another one for its last snapshot."""
    cache = folder / "cache"
    if sees(folder, token):
        _clear(cache)
        return
    shutil.rmtree(cache / TUNE, ignore_errors=True)
    with suppress(OSError):  # not empty, or not there
        cache.rmdir()
        folder.rmdir()


def _clear(cache: Path) -> None:
    """Removes what trials and Tune left, also those that were killed; results of stages stay."""
    for entry in cache.iterdir():
        if entry.is_dir() and entry.name != STAGES:
            shutil.rmtree(entry, ignore_errors=True)
