"""Hands out recipes and learns how each of them ended. Knows neither Ray nor time, so it can be simulated.

Starting recipes come first, then what the sampler draws until a few trunks were measured, then the best of many
candidates. A suggestion follows from the study's seed, the records in their order, what is in flight, and how many
trunks were handed out, and from nothing else: a suggester that is built anew from the store suggests the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from random import Random
from typing import Any

import optuna

from search.engine.archive import Archive
from search.engine.draw import draw, neighbour
from search.engine.features import Encoder
from search.engine.knowledge import Knowledge
from search.engine.length import total_epochs
from search.engine.predict import Predictor, ShapeKey, shape_key
from search.engine.propose import Candidate, Chosen, Limits, Proposer
from search.engine.samplers import SamplerStudy, chosen_sampler, seed_of
from search.engine.warm import hints_of
from search.record import Measurement, Record
from search.screen import Bar, Rival
from search.store import Records
from search.study import StudyConfig
from search.trial import Task
from spaces.recipe import Recipe
from spaces.space import Space

SUGGESTIONS = 10  # draws of the sampler, which may insist on what is known, before it is left aside
RANDOM_DRAWS = 500  # uniform draws before the suggester believes that it has seen every trunk of the space
FIRST = 3  # of its draws, of which the cheapest is tried before there are predictions
TRUNKS = 6  # measured trunks before predictions are worth having


class Suggester:
    """What to try next.

    Args:
        config: the study.
        space: what it searches.
        store: the records so far; they are read here and written by the caller, before ``ended`` is called.
        first: recipes to hand out before anything is suggested.
    """

    def __init__(self, config: StudyConfig, space: Space, store: Records, *, first: Iterable[Recipe]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config, self._space, self._store = config, space, store
        self._first = list(first)
        self._handed: dict[str, Recipe] = {}  # what is in flight, by trial
        self._turns = {entry.recipe.trunk_id for entry in store.started}  # the trunks that were ever handed out
        self._random = Random()
        self._expected: dict[str, Candidate] = {}  # of what is in flight, by trial, by this version of the predictor:
        self._version = (0, 0)
        self._timed: set[ShapeKey] = set()  # shapes that were measured since
        self.sampler = SamplerStudy(space, config.sampler, config.seed, config.objectives, config.constraints)
        encoder = Encoder(space)
        hints = hints_of(config.warm_start, baseline=store.baseline, image_size=config.image_size)
        for hint in hints:
            self.sampler.add_hint(hint)
        archive, predictor = Archive(config.objectives), Predictor(encoder, config.seed)
        self.knowledge = Knowledge(config, store, archive, predictor, hints)
        self.proposer = Proposer(
            space,
            encoder,
            predictor,
            config.objectives,
            cost_power=config.engine.cost_power,
            leaves=config.engine.leaves,
        )
        self._take_in()

    def suggest(self, trial_id: str) -> Task | None:
        """The next task, which is in flight until ``ended`` is called; None if the space is used up."""
        self._take_in()
        self._random = Random(seed_of(self._config.seed, self._turn))
        chosen: Chosen | None = None
        if self._first:
            recipe = self._first.pop(0)
        elif self.knowledge.predictor.trunks >= TRUNKS and self._config.engine.candidates > 1:
            chosen = self._best_of_many()
            recipe = chosen.candidate.recipe if chosen else self._any_new()
        else:
            recipe = self._sampled() or self._any_new()
        if recipe is None:
            return None
        self._handed[trial_id] = recipe
        self._turns.add(recipe.trunk_id)
        self._store.start(recipe)
        own = self._space.leaves(recipe) if self._config.engine.leaves else [recipe]
        leaves = [leaf for leaf in own if leaf.id not in self._store.records]
        whole = chosen is not None and len(leaves) == len(chosen.candidate.keys)
        expected = chosen.expected if chosen is not None and whole else None
        return Task(leaves=tuple(leaves or [recipe]), bar=self._bar(), expected=expected)

    @property
    def _turn(self) -> int:
        return len(self._turns)

    def study(self) -> optuna.Study:
        """What Optuna is told at this moment."""
        return self.sampler.study(list(self._handed.values()), self._turn)

    def summary(self) -> dict[str, Any]:
        """What the search looked at and what it believes, as JSON: for reports."""
        return {
            "sampler": chosen_sampler(self._config.sampler),
            "epochs": self.knowledge.epochs,
            "candidates": dict(self.proposer.dropped),
            "errors": asdict(self.knowledge.predictor.errors()),
        }

    def ended(self, trial_id: str) -> None:
        """Learns how a trial ended, from the records that were stored before this call."""
        del self._handed[trial_id]
        self._expected.pop(trial_id, None)
        self._take_in()

    def _take_in(self) -> None:
        for record in self.knowledge.update():
            self.sampler.add(record, self._store.baseline)
            self._timed.add(shape_key(record.recipe))

    def _is_new(self, trunk: str) -> bool:
        return trunk not in self.knowledge.trunks and trunk not in self._turns

    def _draws(self) -> Iterator[Recipe]:
        """What the sampler draws at this turn."""
        return self.sampler.draws(list(self._handed.values()), self._turn)

    def _sampled(self) -> Recipe | None:
        """The sampler's draw whose trunk was not tried, or None if it insists on what is known.

        The first one is taken if no candidates are compared; else the shortest training of a few: what the predictor
        learns first should cost little.
        """
        draws = (recipe for recipe in islice(self._draws(), SUGGESTIONS) if self._is_new(recipe.trunk_id))
        few = FIRST if self._config.engine.candidates > 1 else 1
        return min(islice(draws, few), key=total_epochs, default=None)

    def _any_new(self) -> Recipe | None:
        """A uniform draw whose trunk was not tried, or None if the space seems used up."""
        draws = (draw(self._space, self._random) for _ in range(RANDOM_DRAWS))
        return next((recipe for recipe in draws if self._is_new(recipe.trunk_id)), None)

    def _best_of_many(self) -> Chosen | None:
        """The proposer's choice among draws of the sampler, neighbours of the front and uniform draws."""
        engine, front = self._config.engine, self.knowledge.archive.front
        asked = islice(self._draws(), min(engine.sampled, engine.candidates))
        drawn = {recipe.trunk_id: recipe for recipe in asked}
        for index in range(engine.candidates - engine.sampled):
            near = index % 2 and front
            parent = self._random.choice(front).record.recipe if near else None
            recipe = neighbour(self._space, parent, self._random) if parent else draw(self._space, self._random)
            drawn.setdefault(recipe.trunk_id, recipe)
        recipes = [recipe for trunk, recipe in drawn.items() if self._is_new(trunk)]
        archive, reachable = self.knowledge.archive, self.knowledge.reachable
        return self.proposer.choose(recipes, archive, self.in_flight(), self._limits(), reachable)

    def in_flight(self) -> list[Candidate]:
        """What is expected of each recipe in flight; there may be thousands, so only what changed is looked up anew."""
        if (version := self.knowledge.predictor.version) != self._version:
            self._expected, self._version = {}, version
        for trial_id, candidate in self._expected.items():
            if not self._timed.isdisjoint(candidate.keys):
                self._expected[trial_id] = self.proposer.settled(candidate)
        self._timed.clear()
        new = [trial_id for trial_id in self._handed if trial_id not in self._expected]
        found = self.proposer.expect([self._handed[trial_id] for trial_id in new])
        self._expected |= dict(zip(new, found, strict=True))
        return [self._expected[trial_id] for trial_id in self._handed]

    def _baseline(self) -> tuple[Measurement, float] | None:
        """What was measured of the baseline, and its accuracy."""
        measured = self._store.baseline.measurement if self._store.baseline else None
        return None if measured is None or measured.accuracy is None else (measured, measured.accuracy.value)

    def _limits(self) -> Limits:
        if (baseline := self._baseline()) is None:
            return Limits()
        measured, accuracy = baseline
        return Limits.of(
            self._config.constraints,
            accuracy=accuracy,
            latency_ms=measured.latency.quiet_ms / measured.latency.ratio,
            size_mb=measured.size_bytes / 1e6,
        )

    def _bar(self) -> Bar | None:
        """What the trial has to beat before it is trained; None where it is trained whatever it costs to run."""
        if not self._config.engine.screen or self._baseline() is None:
            return None
        return Bar(
            reachable_accuracy=self.knowledge.reachable,
            rivals=tuple(_rival(entry.record) for entry in self.knowledge.archive.front),
            constraints=self._config.constraints,
            objectives=self._config.objectives,
        )


def _rival(record: Record) -> Rival:
    measurement = record.measurement
    assert measurement is not None and measurement.accuracy is not None
    return Rival(
        id=record.id,
        accuracy=measurement.accuracy.value,
        latency=measurement.latency.ratio,
        size=measurement.size_ratio,
    )
