"""Optuna's samplers, and a study of Optuna's that knows what the records say and nothing else."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
FULL, REMEMBERED = 600, 200  # trials
OPTUNA_STATES = {"screened": TrialState.PRUNED, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
AUTO: SamplerName = "tpe"  # what `python -m search simulate` measured best; see docs/simulate.md


def chosen_sampler(name: SamplerName) -> SamplerName:
    """The sampler that ``name`` stands for: itself, or for ``auto`` the one that did best on the simulator."""
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
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
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
        "latency in ms": (measured.latency.p50_ms, limits.max_latency_ms),
        "size in MB": (measured.size_bytes / 1e6, limits.max_size_mb),
        "accuracy drop": (None, limits.max_accuracy_drop),
    }
    if measured.accuracy is not None and baseline.measurement.accuracy is not None:
        drop = baseline.measurement.accuracy.value - measured.accuracy.value
        found["accuracy drop"] = (drop, limits.max_accuracy_drop)
    return {
        name: value - limit for name, (value, limit) in found.items() if value is not None and limit is not None
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Told:
    """A finished trial, as Optuna is told it."""

    params: dict[str, Value]
    distributions: dict[str, BaseDistribution]
    state: TrialState
    values: list[float] | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def trial(self) -> FrozenTrial:
        """The trial to add to a study."""
        return create_trial(
            state=self.state,
            values=self.values,
            params=self.params,
            distributions=self.distributions,
            user_attrs=dict(self.attributes),
            constraints=dict(self.constraints),
        )


class SamplerStudy:
    """An Optuna study in memory that is told how each record ended, with the limits that it broke.

    A sampler's time for a suggestion grows with the trials that it looks at. Beyond ``FULL`` of them the study is made
    anew from the best and the latest ``REMEMBERED``, and from what is in flight.

    Args:
        space: what is searched.
        sampler: draws the recipes.
        objectives: the study's.
        constraints: the study's; samplers that can use them prefer what keeps them.
    """

    def __init__(
        self,
        space: Space,
        sampler: optuna.samplers.BaseSampler,
        objectives: tuple[Objective, ...],
        constraints: Constraints,
    ) -> None:
        self._space, self._objectives, self._constraints = space, objectives, constraints
        self.study = optuna.create_study(sampler=sampler, directions=directions_of(objectives))
        self._ids: set[str] = set()  # of the records that Optuna knows or knew
        self._told: list[_Told] = []
        self._trials = 0  # in the study
        self._flying: dict[int, tuple[Recipe, optuna.Trial | int]] = {}  # by handle: the trial or its number
        self._handles = itertools.count()

    def ask(self) -> tuple[int, Recipe]:
        """A handle, and what the sampler suggests; it counts as in flight until it is told or put back."""
        if self._trials > FULL:
            self._begin_anew()
        trial, handle = self.study.ask(), next(self._handles)
        recipe = self._space.suggest(trial)
        self._flying[handle] = recipe, trial
        self._trials += 1
        return handle, recipe

    def ask_for(self, recipe: Recipe) -> int | None:
        """A handle for ``recipe``, which counts as in flight; None if it is not in the space."""
        if (asked := self._space.params(recipe)) is None:
            return None
        handle = next(self._handles)
        self._flying[handle] = recipe, self._add(_told(asked, TrialState.RUNNING))
        return handle

    def put_back(self, handle: int) -> None:
        """Ends a suggestion that nobody will try."""
        _, trial = self._flying.pop(handle)
        self.study.tell(trial, state=TrialState.FAIL)

    def tell(self, handle: int, record: Record | None, baseline: Record | None) -> None:
        """How the suggestion ended: its record, or None for a trial that left none."""
        recipe, trial = self._flying.pop(handle)
        asked = self._space.params(recipe)
        if isinstance(trial, int) or record is None or asked is None:
            self.study.tell(trial, state=TrialState.FAIL)  # its record is added as a trial of its own
            return
        told = self._outcome(record, asked, baseline)
        for name, value in told.constraints.items():
            trial.set_constraint(name, value)
        self.study.tell(trial, told.values, state=told.state)
        self._told.append(told)
        self._ids.add(record.id)

    def add(self, record: Record, baseline: Record | None) -> None:
        """Adds a record that Optuna does not know, if it fits the space."""
        if record.id in self._ids or (asked := self._space.params(record.recipe)) is None:
            return
        self._ids.add(record.id)
        self._told.append(self._outcome(record, asked, baseline))
        self._add(self._told[-1])

    def add_hint(self, hint: Hint) -> None:
        """Adds what an earlier study found, as if it had been found here, if it fits the space."""
        if (asked := self._space.params(hint.recipe)) is None:
            return
        values: dict[Objective, float] = {"accuracy": hint.accuracy, "latency": hint.latency, "size": hint.size}
        self._told.append(_told(asked, TrialState.COMPLETE, values=[values[o] for o in self._objectives]))
        self._add(self._told[-1])

    def _add(self, told: _Told) -> int:
        """Adds a trial and returns its number."""
        self.study.add_trial(told.trial())
        self._trials += 1
        return self._trials - 1

    def _begin_anew(self) -> None:
        """Forgets all but the best, the latest, and what is in flight."""
        kept = remembered([told.values for told in self._told], self._objectives)
        self._told = [self._told[index] for index in kept]
        directions = directions_of(self._objectives)
        self.study = optuna.create_study(sampler=self.study.sampler, directions=directions)
        self._trials = 0
        for told in self._told:
            self._add(told)
        for handle, (recipe, _) in self._flying.items():
            asked = self._space.params(recipe)
            assert asked is not None, "it was drawn from this space"
            self._flying[handle] = recipe, self._add(_told(asked, TrialState.RUNNING))

    def _outcome(self, record: Record, asked: Asked, baseline: Record | None) -> _Told:
        """Stopped, screened and failed trials have no values: they would be believed."""
        values = record.values(self._objectives)
        finished = TrialState.FAIL if values is None else TrialState.COMPLETE
        return _told(
            asked,
            OPTUNA_STATES.get(record.state, finished),
            values=None if values is None else list(values),
            constraints=violations(record, baseline, self._constraints),
            attributes={"record": record.id},
        )


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
    return _Told(
        params={name: value for name, (value, _) in asked.items()},
        distributions={name: to_distribution(domain) for name, (_, domain) in asked.items()},
        state=state,
        values=values,
        constraints=constraints or {},
        attributes=attributes or {},
    )
