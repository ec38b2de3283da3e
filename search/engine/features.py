"""Recipes as rows of numbers, for regressors: generic over the space, whatever techniques it holds."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from spaces.domain import Choice, Domain
from spaces.params import Params, Value, part_params, to_params
from spaces.recipe import LEAF_FIELDS, Recipe
from spaces.space import Space

Floats = NDArray[np.float64]
ABSENT = -0.25  # a field of a kind that was not chosen; what is chosen lies between 0 and 1


class Encoder:
    """Turns recipes into rows: a number between 0 and 1 for a range, a column for each value of a choice.

    A range on a log scale is laid out on that scale. Constants of the space have no column. Values outside the
    space, from an earlier study of another space, are laid beyond 0 and 1, or in no column of a choice.
    """

    def __init__(self, space: Space) -> None:
        self._columns = {name: domain for name, domain in _domains(space).items() if not _constant(domain)}
        self._trunk = {name: domain for name, domain in self._columns.items() if not _of_leaf(name)}
        self._leaf = {name: domain for name, domain in self._columns.items() if _of_leaf(name)}

    def row(self, recipe: Recipe) -> Floats:
        """The row of one recipe: its trunk's columns, then its leaf's."""
        return np.array([*self.trunk(recipe), *self.leaf(recipe)])

    def trunk(self, recipe: Recipe) -> list[float]:
        """The columns of everything that is trained or decides what is trained."""
        return _encode(self._trunk, to_params(recipe))

    def leaf(self, recipe: Recipe) -> list[float]:
        """The columns of what is done to trained weights."""
        return _encode(self._leaf, leaf_params(recipe))


def leaf_params(recipe: Recipe) -> Params:
    """The flat parameters of a recipe's leaf fields alone."""
    params: Params = {}
    for field in LEAF_FIELDS:
        params |= part_params(field, getattr(recipe, field))
    return params


def _domains(space: Space) -> dict[str, Domain]:
    domains: dict[str, Domain] = {}
    for field, content in space.fields.items():
        if not isinstance(content, tuple):
            domains[field] = content
            continue
        domains[f"{field}.kind"] = Choice(values=tuple(option.kind for option in content))
        for option, (key, domain) in itertools.chain.from_iterable(
            ((option, item) for item in option.fields.items()) for option in content
        ):
            domains[f"{field}.{option.kind}.{key}"] = domain
    return domains


def _constant(domain: Domain) -> bool:
    return isinstance(domain, Choice) and len(domain.values) == 1


def _of_leaf(name: str) -> bool:
    return name.split(".")[0] in LEAF_FIELDS


def _numbers(domain: Choice) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in domain.values)


def _encode(columns: dict[str, Domain], params: Params) -> list[float]:
    row: list[float] = []
    for name, domain in columns.items():
        value = params.get(name)
        if isinstance(domain, Choice) and not _numbers(domain):
            row += [float(value == own) for own in domain.values]
        else:
            row.append(ABSENT if value is None else _unit(domain, value))
    return row


def _unit(domain: Domain, value: Value) -> float:
    """A number's place between the ends of its domain."""
    if isinstance(domain, Choice):
        numbers = [float(own) for own in domain.values if isinstance(own, (int, float))]
        low, high, log = min(numbers), max(numbers), False
    else:
        low, high, log = domain.low, domain.high, domain.log
    if isinstance(value, str):
        return ABSENT
    place = math.log(value / low) / math.log(high / low) if log else (value - low) / ((high - low) or 1.0)
    return float(place)
