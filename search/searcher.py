"""Ray Tune's Optuna searcher, strict: only finished trials with finite values count as finished.

The stock class tells Optuna COMPLETE for any trial that reported once, and leaves one whose value is not a number
running for ever. Here every trial ends in the state that it earned, and each trunk's further leaves are told as
trials of their own.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from search.front import non_dominated
from search.record import MAXIMIZED, Record, losses
from search.screen import Bar, Rival
from search.store import Store
from search.study import StudyConfig
from search.trial import Task
from spaces.domain import Choice, Domain
from spaces.recipe import Recipe
from spaces.space import Space

SUGGESTIONS = 10  # draws of the sampler, which may insist on what is known, before it is left aside
RANDOM_DRAWS = 500  # uniform draws before the searcher believes that it has seen every trunk of the space
OPTUNA_STATES = {"screened": TrialState.PRUNED, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class StrictOptunaSearch(OptunaSearch):
    """Hands out starting recipes, then what Optuna suggests, and tells it how each of them really ended.

    The study in memory is built anew from the store at every start, so it needs no storage of its own and a
    resumed search knows all that was measured.

    Args:
        config: the study.
        space: what it searches.
        store: the records so far; the searcher reads it, the driver writes it.
        first: recipes to hand out before anything is suggested.
        trials: how many trials to hand out, or None for no limit.
        deadline: the value of ``time.monotonic()`` after which none is handed out.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: Space,
        store: Store,
        *,
        first: Iterable[Recipe],
        trials: int | None,
        deadline: float,
    ) -> None:
        modes = ["max" if objective in MAXIMIZED else "min" for objective in config.objectives]
        # Resumed studies draw from another stream: with the same one they would repeat the first suggestions.
        sampler = make_sampler(config.sampler, config.seed + len(store.records))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(
            space=cast(Any, space.suggest), metric=list(config.objectives), mode=modes, sampler=sampler
        )  # fmt: skip
        self._config, self._recipes, self._store = config, space, store
        self._first = list(first)
        self._left, self._deadline = trials, deadline
        self._handed: dict[str, Recipe] = {}
        self._random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=config.seed))
        self._told: set[str] = set()  # ids of the records that Optuna knows
        for record in store.searched:
            self._add(record)

    @property
    def study(self) -> optuna.Study:
        """The Optuna study behind this searcher."""
        assert self._ot_study is not None
        return self._ot_study

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next task, as Ray Tune's config, or FINISHED when the budget or the space is used up."""
        if self._left == 0 or time.monotonic() > self._deadline:
            return Searcher.FINISHED
        recipe = self._asked_for(trial_id, self._first.pop(0)) if self._first else self._new_recipe(trial_id)
        if recipe is None:
            return Searcher.FINISHED
        if self._left is not None:
            self._left -= 1
        self._handed[trial_id] = recipe
        self._store.start(recipe)
        leaves = [leaf for leaf in self._recipes.leaves(recipe) if leaf.id not in self._store.records]
        return {"task": Task(leaves=tuple(leaves or [recipe]), bar=self._bar()).model_dump_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how the trial ended, from the records that the driver stored before this call."""
        recipe = self._handed.pop(trial_id)
        trunk = [record for record in self._store.searched if record.recipe.trunk_id == recipe.trunk_id]
        own = next((record for record in trunk if record.id == recipe.id), None)
        if (trial := self._ot_trials.pop(trial_id, None)) is not None:
            state, values = self._outcome(own)
            self.study.tell(trial, values, state=state)
            self._told.add(recipe.id)
        for record in trunk:
            self._add(record)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a trial is told once, when it ends."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, for the same reason as in ``save``."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing of worth: the store is the truth, and Tune's snapshot is thrown away."""
        Path(checkpoint_path).write_bytes(b"")

    def restore(self, checkpoint_path: str) -> None:
        """Refused; a search is resumed from its records."""
        raise RuntimeError("a search is resumed from records.jsonl, not from Ray Tune's snapshot")

    def _asked_for(self, trial_id: str, recipe: Recipe) -> Recipe:
        """Has Optuna suggest ``recipe`` if it fits the space, so that it counts as in flight; returns it."""
        asked = self._recipes.params(recipe)
        if asked is not None:
            self.study.enqueue_trial({name: value for name, (value, _) in asked.items()})
            self._ot_trials[trial_id] = self.study.ask()
            self._recipes.suggest(self._ot_trials[trial_id])
        return recipe

    def _new_recipe(self, trial_id: str) -> Recipe | None:
        """A recipe whose trunk was not tried and is not in flight, or None if the space seems used up.

        A sampler that has settled on a small space suggests the same again and again; then one is drawn at random.
        """
        known = {record.recipe.trunk_id for record in self._store.searched}
        known |= {recipe.trunk_id for recipe in self._handed.values()}
        for _ in range(SUGGESTIONS):
            trial = self.study.ask()
            recipe = self._recipes.suggest(trial)
            if recipe.trunk_id not in known:
                self._ot_trials[trial_id] = trial
                return recipe
            self.study.tell(trial, state=TrialState.FAIL)  # it is known under its own trial already
        for _ in range(RANDOM_DRAWS):
            recipe = self._recipes.suggest(self._random.ask())
            if recipe.trunk_id not in known:
                return self._asked_for(trial_id, recipe)
        return None

    def _bar(self) -> Bar | None:
        baseline = self._store.baseline
        if baseline is None or baseline.measurement is None or baseline.measurement.accuracy is None:
            return None
        rivals = [record for record in self._store.searched if record.values(self._config.objectives) is not None]
        points = [losses(record.values(self._config.objectives) or (), self._config.objectives) for record in rivals]
        keep = non_dominated(points) if points else []
        front = tuple(_rival(record) for record, kept in zip(rivals, keep, strict=True) if kept)
        return Bar(
            reachable_accuracy=max([baseline.measurement.accuracy.value, *(rival.accuracy for rival in front)]),
            rivals=front,
            constraints=self._config.constraints,
            objectives=self._config.objectives,
        )

    def _outcome(self, record: Record | None) -> tuple[TrialState, list[float] | None]:
        values = record.values(self._config.objectives) if record else None
        if values is not None:
            return TrialState.COMPLETE, list(values)
        return OPTUNA_STATES.get(record.state, TrialState.FAIL) if record else TrialState.FAIL, None

    def _add(self, record: Record) -> None:
        """Adds a record as a trial of its own, unless Optuna knows it or it lies outside the space."""
        asked = self._recipes.params(record.recipe)
        if asked is None or record.id in self._told:
            return
        self._told.add(record.id)
        state, values = self._outcome(record)
        self.study.add_trial(
            create_trial(
                state=state,
                values=values,
                params={name: value for name, (value, _) in asked.items()},
                distributions={name: to_distribution(domain) for name, (value, domain) in asked.items()},
                user_attrs={"record": record.id},
            )
        )


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler called ``name``; TPE models groups of conditional parameters jointly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=8
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
            case _:
                return optuna.samplers.RandomSampler(seed=seed)


def to_distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution for a domain of ours."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), step=int(domain.step or 1), log=domain.log)
    return FloatDistribution(domain.low, domain.high, step=domain.step, log=domain.log)


def _rival(record: Record) -> Rival:
    measurement = record.measurement
    assert measurement is not None and measurement.accuracy is not None
    return Rival(
        id=record.id,
        accuracy=measurement.accuracy.value,
        latency=measurement.latency.ratio,
        size=measurement.size_ratio,
    )
