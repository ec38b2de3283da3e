"""The engines that are compared: plain search, and the product's own with each of its parts switched off.

``Contender`` is what a replay needs of any of them. Ours are the classes that run a real study.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import optuna

from search.engine.rungs import Rungs, RungSettings
from search.engine.samplers import directions_of
from search.engine.suggester import Suggester
from search.store import Records
from search.study import Engine, SamplerName, StudyConfig
from search.trial import Task
from spaces.recipe import Recipe
from spaces.space import Space
from spaces.starts import starting_recipes


class Contender(Protocol):
    """Hands out tasks and learns how they ended."""

    def suggest(self, trial_id: str) -> Task | None:
        """The next task, or None if there is none."""
        ...

    def ended(self, trial_id: str) -> None:
        """Learns how a trial ended, from the records that were stored before."""
        ...


class Plain:
    """A stock sampler: what it draws is trained to its end, and what it showed is told; nothing else.

    As Ray Tune's ``OptunaSearch`` with full-length trials: one recipe a trial, no screening, no starting recipes.
    ``leaves`` measures every leaf of a trunk all the same, and tells the drawn one.
    """

    def __init__(
        self, config: StudyConfig, space: Space, store: Records, sampler: optuna.samplers.BaseSampler, *, leaves: bool
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(sampler=sampler, directions=directions_of(config.objectives))
        self._config, self._space, self._store, self._leaves = config, space, store, leaves
        self._trials: dict[str, tuple[optuna.Trial, Recipe]] = {}

    def suggest(self, trial_id: str) -> Task:
        """What the sampler draws, known or not."""
        trial = self._study.ask()
        recipe = self._space.suggest(trial)
        self._trials[trial_id] = trial, recipe
        return Task(leaves=tuple(self._space.leaves(recipe)) if self._leaves else (recipe,))

    def ended(self, trial_id: str) -> None:
        """Tells the drawn recipe's values."""
        trial, recipe = self._trials.pop(trial_id)
        values = self._store.records[recipe.id].values(self._config.objectives)
        assert values is not None
        self._study.tell(trial, list(values))


SHIPPED_RUNGS = RungSettings()


@dataclass(frozen=True, kw_only=True)
class Spec:
    """An engine by name: how it is made, and where its rungs are (None: every trial is trained to its end)."""

    name: str
    make: Callable[[StudyConfig, Space, Records], Contender]
    rungs: RungSettings | None = None
    what: str = ""

    def rungs_of(self, config: StudyConfig) -> Rungs | None:
        """Fresh rungs for one replay."""
        return None if self.rungs is None else Rungs(self.rungs, config.objectives)


def random(*, leaves: bool = False) -> Spec:
    """Uniform draws, each trained to its end."""
    return Spec(
        name="random" + " + leaves" * leaves,
        make=lambda config, space, store: Plain(
            config, space, store, optuna.samplers.RandomSampler(seed=config.seed), leaves=leaves
        ),
        what="uniform draws, trained to the end",
    )


def stock(*, leaves: bool = False) -> Spec:
    """The sampler that Ray Tune's ``OptunaSearch`` makes when it is given none: TPE with its defaults."""
    return Spec(
        name="optuna" + " + leaves" * leaves,
        make=lambda config, space, store: Plain(
            config, space, store, optuna.samplers.TPESampler(seed=config.seed), leaves=leaves
        ),
        what="Ray Tune's stock OptunaSearch (TPE), trained to the end",
    )


def ours(
    name: str = "ours",
    *,
    rungs: RungSettings | None = SHIPPED_RUNGS,
    engine: Engine | None = None,
    sampler: SamplerName = "auto",
    what: str = "the engine as it is shipped",
) -> Spec:
    """The product's engine, or one with a part of it changed."""
    settings = engine or Engine()

    def make(config: StudyConfig, space: Space, store: Records) -> Contender:
        first = starting_recipes(space, image_size=config.image_size) if settings.starts else []
        return Suggester(config.model_copy(update={"sampler": sampler, "engine": settings}), space, store, first=first)

    return Spec(name=name, make=make, rungs=rungs, what=what)


def ablations() -> list[Spec]:
    """The product's engine, and without each of its parts."""
    blind = Engine(candidates=1, screen=False)
    return [
        ours(),
        ours("- rungs", rungs=None, what="every trial is trained to its end"),
        ours("- proposal", engine=Engine(candidates=1), what="the sampler's first draw is tried"),
        ours("- latency first", engine=blind, what="and trained, whatever its latency and size"),
        ours("- leaves", engine=Engine(leaves=False), what="one leaf is measured for each trained trunk"),
        ours("- sampler", sampler="random", what="no draw of a sampler is among the candidates"),
        ours("- starts", engine=Engine(starts=False), what="no hand-picked recipes at the start"),
    ]


def samplers() -> list[Spec]:
    """The product's engine with each sampler that ``auto`` may stand for, alone and among the proposer's candidates."""
    names: tuple[SamplerName, ...] = ("tpe", "nsga2", "gp", "random")
    return [ours(f"ours, {name}", sampler=name) for name in names]
