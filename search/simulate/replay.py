"""One engine on one world, in simulated time, with any number of workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from search.engine.archive import Archive
from search.engine.length import total_epochs
from search.engine.rungs import Rungs, known_losses, point
from search.record import Artifact, Record
from search.screen import why_screened
from search.simulate.clock import Clock
from search.simulate.engines import Contender, Spec
from search.simulate.surrogate import World
from search.store import Records
from search.study import StudyConfig
from search.trial import Task, screened_trunk
from spaces.recipe import Recipe
from spaces.space import Space

NO_FILE = Artifact(path="simulated", sha256="", size_bytes=0)


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far an engine was when a trial ended: epochs begun by all trials, seconds, and the hypervolume."""

    epochs: int
    seconds: float
    hypervolume: float


@dataclass(kw_only=True)
class Trajectory:
    """A replay: its steps in order, and how its trials ended."""

    steps: list[Step] = field(default_factory=list)
    trials: int = 0
    states: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs of training in all."""
        return self.steps[-1].epochs if self.steps else 0

    @property
    def hypervolume(self) -> float:
        """The hypervolume at the end."""
        return self.steps[-1].hypervolume if self.steps else 0.0

    def epochs_to(self, hypervolume: float) -> int | None:
        """Epochs begun when the hypervolume was reached, or None if it never was."""
        return next((step.epochs for step in self.steps if step.hypervolume >= hypervolume), None)

    def seconds_to(self, hypervolume: float) -> float | None:
        """Simulated seconds until the hypervolume was reached, or None if it never was."""
        return next((step.seconds for step in self.steps if step.hypervolume >= hypervolume), None)


class Replay:
    """Runs ``spec`` on ``world`` until a limit.

    Args:
        spec: the engine.
        world: answers every question about a recipe.
        config: the study; its seed is the engine's.
        space: what is searched.
        workers: trials at once, each at the world's speed.
        trials: how many are handed out at most, or None.
        epochs: no trial is handed out when so many were begun, or None.
        enough: the replay ends when the hypervolume reaches this, or None.
    """

    def __init__(
        self,
        spec: Spec,
        world: World,
        config: StudyConfig,
        space: Space,
        *,
        workers: int,
        trials: int | None = None,
        epochs: int | None = None,
        enough: float | None = None,
    ) -> None:
        self._world, self._config = world, config
        self._store = Records([world.baseline()])
        self._engine: Contender = spec.make(config, space, self._store)
        self._rungs: Rungs | None = spec.rungs_of(config)
        self._archive = Archive(config.objectives)
        self._clock, self._workers = Clock(), workers
        self._trials, self._epochs, self._enough = trials, epochs, enough
        self._begun = 0
        self._found = Trajectory()

    def run(self) -> Trajectory:
        """The trajectory until the limit, with every trial that was handed out brought to its end."""
        for _ in range(self._workers):
            self._clock.after(0.0, self._next)
        self._clock.run(until=self._reached)
        self._found.states = self._store.states()
        self._found.dropped = dict(getattr(getattr(self._engine, "proposer", None), "dropped", {}))
        return self._found

    def _reached(self) -> bool:
        return self._enough is not None and self._found.hypervolume >= self._enough

    def _next(self) -> None:
        """A worker is free: it takes a trial, or rests for good."""
        over = self._trials is not None and self._found.trials >= self._trials
        if over or (self._epochs is not None and self._begun >= self._epochs):
            return
        name = str(self._found.trials)
        task = self._engine.suggest(name)
        if task is None:
            return
        self._found.trials += 1
        if task.bar is None or not total_epochs(task.leaves[0]):
            self._train(name, task, [], 0)
        else:
            self._clock.after(self._world.screen_seconds, partial(self._screen, name, task))

    def _screen(self, name: str, task: Task) -> None:
        """Latency and size are measured before training, and decide what is worth it."""
        records: dict[str, Record] = {}
        assert task.bar is not None
        for leaf in task.leaves:
            measured = self._world.measured(leaf, accuracy=False)
            reason = why_screened(
                measured.latency, size_bytes=measured.size_bytes, size_ratio=measured.size_ratio, bar=task.bar
            )
            state = "stopped" if reason is None else "screened"
            records[leaf.id] = Record(id=leaf.id, recipe=leaf, state=state, reason=reason or "", measurement=measured)
        screened = [record for record in screened_trunk(records, task).values() if record.state == "screened"]
        if len(screened) == len(task.leaves):
            self._end(name, screened)
        else:
            self._train(name, task, screened, 0)

    def _train(self, name: str, task: Task, screened: list[Record], done: int) -> None:
        """Trains to the next rung or the end; the epochs count from the moment that they begin."""
        trunk = task.leaves[0]
        total = total_epochs(trunk)
        rungs = self._rungs.settings.epochs(total) if self._rungs is not None else ()
        until = next((epoch for epoch in rungs if epoch > done), total)
        self._begun += until - done
        seconds = (until - done) * self._world.epoch_seconds(trunk) if until > done else 0.0
        if until < total:
            self._clock.after(seconds, partial(self._at_rung, name, task, screened, until))
        else:
            self._clock.after(seconds + self._world.measure_seconds, partial(self._finish, name, task, screened))

    def _at_rung(self, name: str, task: Task, screened: list[Record], epoch: int) -> None:
        assert self._rungs is not None
        trunk, total = task.leaves[0], total_epochs(task.leaves[0])
        left = [leaf for leaf in task.leaves if leaf.id not in {record.id for record in screened}]
        stopped = [
            Record(
                id=leaf.id,
                recipe=leaf,
                state="stopped",
                reason=f"not among the best at epoch {epoch}",
                measurement=self._world.measured(leaf, accuracy=False),
                curve=self._curve(trunk, epoch),
            )
            for leaf in left
        ]
        known = known_losses(stopped, self._config.objectives)
        assert known is not None
        losses = point(self._world.accuracy_at(trunk, epoch), known, self._config.objectives)
        if self._rungs.decide(trunk.trunk_id, epoch, total, losses) == "go on":
            self._train(name, task, screened, epoch)
        else:
            self._end(name, [*screened, *stopped])

    def _finish(self, name: str, task: Task, screened: list[Record]) -> None:
        known = {record.id for record in screened}
        curve = self._curve(task.leaves[0], total_epochs(task.leaves[0]))
        complete = [
            Record(
                id=leaf.id,
                recipe=leaf,
                state="complete",
                artifact=NO_FILE,
                measurement=self._world.measured(leaf, accuracy=True),
                curve=curve,
            )
            for leaf in task.leaves
            if leaf.id not in known
        ]
        self._end(name, [*screened, *complete])

    def _curve(self, trunk: Recipe, until: int) -> tuple[tuple[int, float], ...]:
        """What the rungs saw of a training, up to an epoch."""
        if self._rungs is None:
            return ()
        epochs = [epoch for epoch in self._rungs.settings.epochs(total_epochs(trunk)) if epoch <= until]
        return tuple((epoch, self._world.accuracy_at(trunk, epoch)) for epoch in epochs)

    def _end(self, name: str, records: list[Record]) -> None:
        self._store.append(records)
        for record in records:
            self._archive.add(record)
        self._engine.ended(name)
        self._found.steps.append(
            Step(epochs=self._begun, seconds=self._clock.now, hypervolume=self._archive.hypervolume())
        )
        self._next()
