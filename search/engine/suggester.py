"""Hands out recipes and learns how each of them ended. Knows neither Ray nor time, so it can be simulated.

Starting recipes come first, then what the sampler draws until a few trunks were measured, then the best of many
candidates. The state is what the store says: a suggester that is built anew from the records knows the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from random import Random
from typing import Any

import optuna

from search.engine.archive import Archive
from search.engine.draw import draw, neighbour
from search.engine.features import Encoder
from search.engine.knowledge import Knowledge
from search.engine.predict import Predictor
from search.engine.propose import Candidate, Limits, Proposer
from search.engine.samplers import SamplerStudy, chosen_sampler, make_sampler
from search.engine.warm import hints_of
from search.record import Record
from search.screen import Bar, Rival
from search.store import Records
from search.study import StudyConfig
from search.trial import Task
from spaces.recipe import Recipe
from spaces.space import Space

Handed = tuple[Recipe, int | None]  # and the sampler's handle, if it is in the space
SUGGESTIONS = 10  # draws of the sampler, which may insist on what is known, before it is left aside
RANDOM_DRAWS = 500  # uniform draws before the suggester believes that it has seen every trunk of the space
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
        # Resumed studies draw from another stream: with the same one they would repeat the first suggestions.
        seed = config.seed + len(store.records)
        self._config, self._space, self._store = config, space, store
        self._first = list(first)
        self._handed: dict[str, Handed] = {}
        self._flying: set[str] = set()  # the trunks of what was handed out
        self._expected: dict[str, Candidate] = {}  # and what was predicted of it
        self._random = Random(seed)
        self.sampler = SamplerStudy(
            space, make_sampler(config.sampler, seed), config.objectives, config.constraints
        )  # fmt: skip
        encoder = Encoder(space)
        hints = hints_of(config.warm_start, baseline=store.baseline, image_size=config.image_size)
        for hint in hints:
            self.sampler.add_hint(hint)
        self.knowledge = Knowledge(store, Archive(config.objectives), Predictor(encoder, config.seed), hints)
        self.proposer = Proposer(
            space,
            encoder,
            self.knowledge.predictor,
            config.objectives,
            cost_power=config.engine.cost_power,
            leaves=config.engine.leaves,
        )
        self._take_in()

    def suggest(self, trial_id: str) -> Task | None:
        """The next task, which is in flight until ``ended`` is called; None if the space is used up."""
        self._take_in()
        if self._first:
            recipe = self._first.pop(0)
            chosen = recipe, self.sampler.ask_for(recipe)
        elif self.knowledge.predictor.trunks >= TRUNKS and self._config.engine.candidates > 1:
            chosen = self._best_of_many() or self._any_new()
        else:
            chosen = self._sampled() or self._any_new()
        if chosen is None:
            return None
        self._handed[trial_id] = chosen
        recipe = chosen[0]
        self._flying.add(recipe.trunk_id)
        self._store.start(recipe)
        own = self._space.leaves(recipe) if self._config.engine.leaves else [recipe]
        leaves = [leaf for leaf in own if leaf.id not in self._store.records]
        return Task(leaves=tuple(leaves or [recipe]), bar=self._bar())

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
        recipe, handle = self._handed.pop(trial_id)
        self._flying.discard(recipe.trunk_id)
        self._expected.pop(trial_id, None)
        if handle is not None:
            self.sampler.tell(handle, self._store.records.get(recipe.id), self._store.baseline)
        self._take_in()

    def _take_in(self) -> None:
        for record in self.knowledge.update():
            self.sampler.add(record, self._store.baseline)

    def _is_new(self, recipe: Recipe) -> bool:
        trunk = recipe.trunk_id
        return trunk not in self.knowledge.trunks and trunk not in self._flying

    def _sampled(self) -> Handed | None:
        """The sampler's first draw whose trunk was not tried, or None if it insists on what is known."""
        for _ in range(SUGGESTIONS):
            handle, recipe = self.sampler.ask()
            if self._is_new(recipe):
                return recipe, handle
            self.sampler.put_back(handle)
        return None

    def _any_new(self) -> Handed | None:
        """A uniform draw whose trunk was not tried, or None if the space seems used up."""
        for _ in range(RANDOM_DRAWS):
            recipe = draw(self._space, self._random)
            if self._is_new(recipe):
                return recipe, self.sampler.ask_for(recipe)
        return None

    def _best_of_many(self) -> Handed | None:
        """The proposer's choice among draws of the sampler, neighbours of the front and uniform draws."""
        engine, front = self._config.engine, self.knowledge.archive.front
        asked = [self.sampler.ask() for _ in range(min(engine.sampled, engine.candidates))]
        drawn = {recipe.trunk_id: recipe for _, recipe in asked}
        for index in range(engine.candidates - len(asked)):
            near = index % 2 and front
            parent = self._random.choice(front).record.recipe if near else None
            recipe = neighbour(self._space, parent, self._random) if parent else draw(self._space, self._random)
            drawn.setdefault(recipe.trunk_id, recipe)
        recipes = [recipe for recipe in drawn.values() if self._is_new(recipe)]
        index = self.proposer.choose(
            recipes, self.knowledge.archive, self._in_flight(), self._limits(), self.knowledge.reachable
        )  # fmt: skip
        chosen = None if index is None else recipes[index]
        own = next((handle for handle, recipe in asked if chosen is recipe), None)
        for handle, _ in asked:
            if handle != own:
                self.sampler.put_back(handle)
        if chosen is None:
            return None
        return chosen, own if own is not None else self.sampler.ask_for(chosen)

    def _in_flight(self) -> list[Candidate]:
        """What was predicted of each recipe in flight, when it was first asked about."""
        new = [trial_id for trial_id in self._handed if trial_id not in self._expected]
        found = self.proposer.expect([self._handed[trial_id][0] for trial_id in new])
        self._expected |= dict(zip(new, found, strict=True))
        return list(self._expected.values())

    def _limits(self) -> Limits:
        baseline = self._store.baseline
        if baseline is None or baseline.measurement is None or baseline.measurement.accuracy is None:
            return Limits()
        measured = baseline.measurement
        return Limits.of(
            self._config.constraints,
            accuracy=baseline.measurement.accuracy.value,
            latency_ms=measured.latency.p50_ms / measured.latency.ratio,
            size_mb=measured.size_bytes / 1e6,
        )

    def _bar(self) -> Bar | None:
        """What the trial has to beat before it is trained."""
        baseline = self._store.baseline
        if baseline is None or baseline.measurement is None or baseline.measurement.accuracy is None:
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
