"""Recipes drawn without a sampler: uniformly from a space, or near one that is known."""

from __future__ import annotations

import math
from random import Random

from spaces.domain import Choice, Domain
from spaces.params import Value, to_params
from spaces.recipe import Recipe
from spaces.space import Space


def draw(space: Space, random: Random) -> Recipe:
    """A recipe of the space, each of its choices drawn uniformly (on a log scale where the space says so)."""
    return space.build(lambda name, domain: uniform(domain, random))


def neighbour(space: Space, recipe: Recipe, random: Random, *, changes: float = 0.25) -> Recipe:
    """``recipe`` with each of its choices drawn anew with probability ``changes``, and moved into the space."""
    own = to_params(recipe)

    def ask(name: str, domain: Domain) -> Value:
        value = own.get(name.split("[")[0])
        return uniform(domain, random) if value is None or random.random() < changes else domain.nearest(value)

    return space.build(ask)


def uniform(domain: Domain, random: Random) -> Value:
    """A value of the domain; every step of a range is as likely as any other."""
    if isinstance(domain, Choice):
        return random.choice(domain.values)
    if domain.log:
        return domain.nearest(math.exp(random.uniform(math.log(domain.low), math.log(domain.high))))
    step = domain.step or (1 if domain.integer else None)
    if step is None:
        return domain.nearest(random.uniform(domain.low, domain.high))
    return domain.nearest(domain.low + step * random.randint(0, int((domain.high - domain.low) / step + 1e-9)))
