"""How long the engine thinks when a study is large: suggestions, decisions at rungs, and the driver's memory.

The study is invented (a world of the simulator), what is timed is not: Ray Tune's searcher and scheduler as a driver
has them, with this many finished trials and this many in flight.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from search.engine.draw import draw
from search.engine.length import total_epochs
from search.engine.rungs import Rungs, RungSettings
from search.record import Record, State
from search.simulate.recorded import Recorded
from search.simulate.replay import NO_FILE
from search.simulate.surrogate import Surrogate, World
from search.store import Records
from search.trial import Task
from spaces.recipe import Recipe
from spaces.space import Space


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds of one kind of call."""

    calls: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        """The statistics of calls that took so many seconds each."""
        p50, p99, most = (float(v) for v in np.quantile(np.array(seconds) * 1000, [0.5, 0.99, 1.0]))
        return cls(calls=len(seconds), p50=p50, p99=p99, max=most)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What was measured; ``resume_seconds`` is how long a new searcher takes to learn all records."""

    finished: int
    in_flight: int
    records: int
    resume_seconds: float
    suggestion: Times
    decision: Times
    end: Times
    memory_mb: float


def measure(recorded: Recorded, *, finished: int, workers: int, calls: int, size: bool = False, seed: int = 0) -> Scale:
    """Times the engine in a study of ``finished`` trials with ``workers`` more in flight.

    Args:
        recorded: what the world is made from.
        finished: trials that have ended.
        workers: trials in flight.
        calls: trials that end, one after the other, each with its rungs before and a suggestion after.
        size: whether size is an objective, beside accuracy and latency.
        seed: of the world and of the recipes that have ended.
    """
    from search.scheduler import HalvingScheduler
    from search.searcher import StrictOptunaSearch

    world = Surrogate(recorded).world(seed)
    objectives = ("accuracy", "latency", "size") if size else ("accuracy", "latency")
    config = recorded.config.model_copy(update={"seed": seed, "warm_start": (), "objectives": objectives})
    space = config.load_space()
    store = Records([world.baseline()])
    rungs = config.rungs or RungSettings()
    for trunk in _trunks(space, finished, Random(seed)):
        store.append(_records(world, rungs, space.leaves(trunk), total_epochs(trunk)))
    start = time.perf_counter()
    searcher = StrictOptunaSearch(config, space, store, first=[], trials=None, deadline=math.inf)  # type: ignore[arg-type]
    scheduler = HalvingScheduler(Rungs.from_records(rungs, config.objectives, store.searched))
    resumed = time.perf_counter() - start
    study = _Study(searcher=searcher, scheduler=scheduler, world=world, rungs=rungs, store=store)
    for number in range(workers):
        study.begin(str(number))
    study.suggestions.clear()  # what is timed is a study with all of its workers at work
    for number in range(calls):
        study.end(next(iter(study.flying)))
        study.begin(f"more {number}")
    return Scale(
        finished=finished,
        in_flight=workers,
        records=len(store.records),
        resume_seconds=resumed,
        suggestion=Times.of(study.suggestions),
        decision=Times.of(study.decisions),
        end=Times.of(study.ends),
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


@dataclass(kw_only=True)
class _Study:
    """A study as Ray Tune's controller drives it, without Ray; what it calls is timed, in seconds."""

    searcher: Any
    scheduler: Any
    world: World
    rungs: RungSettings
    store: Records
    flying: dict[str, Task] = field(default_factory=dict)
    suggestions: list[float] = field(default_factory=list)
    decisions: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def begin(self, name: str) -> None:
        """A worker is free and takes a trial."""
        start = time.perf_counter()
        config = self.searcher.suggest(name)
        self.suggestions.append(time.perf_counter() - start)
        self.flying[name] = Task.model_validate_json(config["task"])

    def end(self, name: str) -> None:
        """A trial reaches its rungs, and ends there or after them."""
        task = self.flying.pop(name)
        total = total_epochs(task.leaves[0])
        state: State = "complete"
        for epoch in self.rungs.epochs(total):
            stopped = _records(self.world, self.rungs, task.leaves, epoch, "stopped")
            result = {"rung": json.dumps([record.model_dump(mode="json") for record in stopped])}
            start = time.perf_counter()
            decision = self.scheduler.on_trial_result(None, None, result)
            self.decisions.append(time.perf_counter() - start)
            if decision == "STOP":
                state, total = "stopped", epoch
                break
        records = _records(self.world, self.rungs, task.leaves, total, state)
        start = time.perf_counter()
        self.store.append(records)
        self.searcher.on_trial_complete(name)
        self.ends.append(time.perf_counter() - start)


def _trunks(space: Space, count: int, random: Random) -> list[Recipe]:
    """So many different trunks, drawn uniformly."""
    found: dict[str, Recipe] = {}
    while len(found) < count:
        recipe = draw(space, random)
        found.setdefault(recipe.trunk_id, recipe)
    return list(found.values())


def _records(
    world: World, rungs: RungSettings, leaves: Sequence[Recipe], epoch: int, state: State = "complete"
) -> list[Record]:
    """What is reported of a trunk that was trained up to an epoch."""
    total, complete = total_epochs(leaves[0]), state == "complete"
    seen = [*rungs.epochs(total), total]
    curve = tuple((own, world.accuracy_at(leaves[0], own)) for own in seen if own <= epoch) if total else ()
    return [
        Record(
            id=leaf.id,
            recipe=leaf,
            state=state,
            artifact=NO_FILE if complete else None,
            measurement=world.measured(leaf, accuracy=complete),
            curve=curve,
        )
        for leaf in leaves
    ]
