"""Optuna's samplers, and a study of Optuna's that knows what the records say and nothing else."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.engine.warm import Hint
from search.front import non_domination_rank
from search.record import MAXIMIZED, Objective, Record, losses
from search.study import Constraints, SamplerName
from spaces.domain import Choice, Domain
from spaces.params import Value
from spaces.recipe import Recipe
from spaces.space import Space

Asked = Mapping[str, tuple[Value, Domain]]  # what a space asks a sampler, and the answers
FULL, REMEMBERED = 160, 120  # finished trials: a sampler thinks longer the more it knows
RUNNING = 20  # trials in flight that Optuna is told of; the proposer accounts for all of them
POPULATION = 20  # of NSGA-II, whose default of 50 is no better than random draws at a few hundred trials
GENERATION = "NSGAIISampler:generation"  # where NSGA-II keeps it
OPTUNA_STATES = {"screened": TrialState.PRUNED, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
AUTO: SamplerName = "tpe"  # `python -m search simulate --engines samplers` compares them


def chosen_sampler(name: SamplerName) -> SamplerName:
    """The sampler that ``name`` stands for: itself, or what ``auto`` is."""
    return AUTO if name == "auto" else name


def make_sampler(name: SamplerName, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler called ``name``; TPE models groups of conditional parameters jointly.

    GP draws conditional parameters at random, and its time for a suggestion grows with the cube of the trials.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match chosen_sampler(name):
            case "tpe":
                return optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=8
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
            case _:
                return optuna.samplers.RandomSampler(seed=seed)


def to_distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution for a domain of ours."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), step=int(domain.step or 1), log=domain.log)
    return FloatDistribution(domain.low, domain.high, step=domain.step, log=domain.log)


def directions_of(objectives: Iterable[Objective]) -> list[StudyDirection]:
    """Optuna's direction of each objective."""
    return [StudyDirection.MAXIMIZE if o in MAXIMIZED else StudyDirection.MINIMIZE for o in objectives]


def violations(record: Record, baseline: Record | None, limits: Constraints) -> dict[str, float]:
    """By how much a record breaks each limit that is set and that was measured; 0 or less keeps it."""
    measured = record.measurement
    if measured is None or baseline is None or baseline.measurement is None:
        return {}
    found: dict[str, tuple[float | None, float | None]] = {
        "latency ratio": (measured.latency.ratio, limits.max_latency_ratio),
        "latency in ms": (measured.latency.quiet_ms, limits.max_latency_ms),
        "size in MB": (measured.size_bytes / 1e6, limits.max_size_mb),
        "accuracy drop": (None, limits.max_accuracy_drop),
    }
    if measured.accuracy is not None and baseline.measurement.accuracy is not None:
        drop = baseline.measurement.accuracy.value - measured.accuracy.value
        found["accuracy drop"] = (drop, limits.max_accuracy_drop)
    return {
        name: value - limit for name, (value, limit) in found.items() if value is not None and limit is not None
    }  # fmt: skip


class _Told(FrozenTrial):
    """A trial, as Optuna is told it. Nobody changes it, so copies share its content: Optuna copies what it is told."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Told:
        return copy.copy(self)

    def of_generation(self, generation: int) -> _Told:
        """The same trial as one of a generation of NSGA-II."""
        own = copy.copy(self)
        own.system_attrs = {**self.system_attrs, GENERATION: generation}
        return own


class SamplerStudy:
    """What Optuna knows: how each record ended, with the limits that it broke, and what is in flight.

    A draw follows from the records in their order, from what is in flight and from the turn, and from nothing else.
    So a search that was cut off draws what it would have drawn. Therefore Optuna's study is made anew for each turn,
    from no more than ``FULL`` finished trials: beyond, all but the best and the latest ``REMEMBERED`` are forgotten.

    Args:
        space: what is searched.
        name: the sampler's.
        seed: of its random numbers.
        objectives: the study's.
        constraints: the study's; samplers that can use them prefer what keeps them.
    """

    def __init__(
        self,
        space: Space,
        name: SamplerName,
        seed: int,
        objectives: tuple[Objective, ...],
        constraints: Constraints,
    ) -> None:
        self._space, self._seed = space, seed
        self._name: SamplerName = name
        self._objectives, self._constraints = objectives, constraints
        self._told: list[_Told] = []
        self._flying: dict[str, _Told] = {}  # by recipe, as of the last turn

    def add(self, record: Record, baseline: Record | None) -> None:
        """Tells how a record ended, if it fits the space. Only finished ones have values: others would be believed."""
        if (asked := self._space.params(record.recipe)) is None:
            return
        values = record.values(self._objectives)
        finished = TrialState.FAIL if values is None else TrialState.COMPLETE
        self._tell(
            _told(
                asked,
                OPTUNA_STATES.get(record.state, finished),
                values=None if values is None else list(values),
                constraints=violations(record, baseline, self._constraints),
                attributes={"record": record.id},
            )
        )

    def add_hint(self, hint: Hint) -> None:
        """Tells what an earlier study found, as if it had been found here, if it fits the space."""
        if (asked := self._space.params(hint.recipe)) is None:
            return
        values: dict[Objective, float] = {"accuracy": hint.accuracy, "latency": hint.latency, "size": hint.size}
        self._tell(_told(asked, TrialState.COMPLETE, values=[values[o] for o in self._objectives]))

    def draws(self, in_flight: Sequence[Recipe], turn: int) -> Generator[Recipe]:
        """What the sampler draws at this turn, one after the other, each as if the ones before were in flight too."""
        study = self.study(in_flight, turn)
        while True:
            yield self._space.suggest(study.ask())

    def study(self, in_flight: Sequence[Recipe], turn: int) -> optuna.Study:
        """Optuna's view: all that ended, and the latest recipes of the space that are in flight as running."""
        sampler = make_sampler(self._name, seed_of(self._seed, turn))
        study = optuna.create_study(sampler=sampler, directions=directions_of(self._objectives))
        finished, generations = 0, chosen_sampler(self._name) == "nsga2"
        for told in [*self._told, *self._running(in_flight[-RUNNING:])]:
            study.add_trial(told.of_generation(finished // POPULATION) if generations else told)
            finished += told.state == TrialState.COMPLETE
        return study

    def _running(self, recipes: Sequence[Recipe]) -> list[_Told]:
        """Those of the recipes that are in the space, as trials that run."""
        known, self._flying = self._flying, {}
        for recipe in recipes:
            if recipe.id in known:
                self._flying[recipe.id] = known[recipe.id]
            elif (asked := self._space.params(recipe)) is not None:
                self._flying[recipe.id] = _told(asked, TrialState.RUNNING)
        return list(self._flying.values())

    def _tell(self, told: _Told) -> None:
        self._told.append(told)
        if len(self._told) > FULL:
            kept = remembered([own.values for own in self._told], self._objectives)
            self._told = [self._told[index] for index in kept]


def seed_of(seed: int, turn: int) -> int:
    """A seed of its own for every turn of a search."""
    return int(np.random.SeedSequence([seed, turn]).generate_state(1)[0])


def remembered(values: Sequence[list[float] | None], objectives: tuple[Objective, ...]) -> list[int]:
    """The indices of the latest trials and of those with the best ranks, half of ``REMEMBERED`` each, in order."""
    half = REMEMBERED // 2
    latest = set(range(max(0, len(values) - half), len(values)))
    finished = [index for index, own in enumerate(values) if own is not None]
    points = [losses(tuple(values[index] or ()), objectives) for index in finished]
    ranks = non_domination_rank(points) if points else []
    best = [index for _, index in sorted(zip(ranks, finished, strict=True))[:half]]
    return sorted(latest | set(best))


def _told(
    asked: Asked,
    state: TrialState,
    *,
    values: list[float] | None = None,
    constraints: Mapping[str, float] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> _Told:
    trial = create_trial(
        state=state,
        values=values,
        params={name: value for name, (value, _) in asked.items()},
        distributions={name: to_distribution(domain) for name, (_, domain) in asked.items()},
        user_attrs=dict(attributes or {}),
        constraints=dict(constraints or {}),
    )
    return _Told(
        number=trial.number,
        trial_id=trial.number,
        state=trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values={},
    )
