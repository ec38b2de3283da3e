"""A space says which fields of a recipe vary and how; it is read from YAML and asked by a sampler.

Fields are asked in the order of ``Recipe``; a field with several kinds is asked for its kind first and then for
the fields of that kind alone, so the space is conditional.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from spaces.domain import Choice, Domain, SamplerTrial, middle, samples
from spaces.params import Params, Value, to_params
from spaces.recipe import LEAF_FIELDS, Recipe
from spaces.sense import concerns_a_rule, refusal, wasteful

Question = tuple[str, Domain]
Questions = dict[tuple[Any, ...], dict[str, Question]]  # by the answers so far that rules read, then by name
Ask = Callable[[str, Domain], Value]


class SpaceError(ValueError):
    """A space that cannot be used; the message names the key, what is wrong and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class PartSpace:
    """One kind that a field may take, and the domains of its fields."""

    kind: str
    fields: Mapping[str, Domain]


@dataclass(frozen=True, kw_only=True)
class Space:
    """The recipes that a search may draw; ``fields`` follows the order of ``Recipe``."""

    name: str
    fields: Mapping[str, Domain | tuple[PartSpace, ...]]
    _questions: Questions = dataclasses.field(default_factory=Questions, init=False, repr=False, compare=False)

    def build(self, ask: Ask) -> Recipe:
        """The recipe that the answers of ``ask(name, domain)`` describe; constants are asked about too.

        Nobody is asked about what cannot go with the answers so far.

        Raises:
            SpaceError: the space gives nothing that goes with the answers so far.
        """
        params: Params = {}
        ruling: Params = {}  # the answers that rules read: what may be asked next follows from them alone
        known = self._questions.setdefault((), {})

        def answer(name: str, question: Callable[[Params], Question]) -> Value:
            nonlocal known
            if (asked := known.get(name)) is None:
                asked = known[name] = question(ruling)
            params[name] = value = ask(*asked)
            if concerns_a_rule(name):
                ruling[name] = value
                known = self._questions.setdefault(tuple(ruling.items()), {})
            return value

        for field, content in self.fields.items():
            if isinstance(content, tuple):
                kind = answer(f"{field}.kind", partial(_which_kind, field, content))
                part = next(option for option in content if option.kind == kind)
                for key, domain in part.fields.items():
                    answer(name := f"{field}.{kind}.{key}", partial(_which_value, name, domain))
            else:
                answer(field, partial(_which_value, field, content))
        return Recipe.from_params(params)

    def suggest(self, trial: SamplerTrial) -> Recipe:
        """A recipe drawn by ``trial``, an Optuna trial or anything with its ``suggest_*`` methods."""
        return self.build(lambda name, domain: domain.suggest(trial, name))

    def nearest(self, preferences: Params) -> Recipe:
        """The recipe of this space that comes closest to ``preferences``, field by field."""

        def ask(name: str, domain: Domain) -> Value:
            wanted = preferences.get(name.split("[")[0])
            return domain.nearest(wanted) if wanted is not None else middle(domain)

        return self.build(ask)

    def params(self, recipe: Recipe) -> dict[str, tuple[Value, Domain]] | None:
        """What a sampler would have been asked to draw ``recipe``, or None if it is not in this space."""
        own = to_params(recipe)
        asked: dict[str, tuple[Value, Domain]] = {}

        def ask(name: str, domain: Domain) -> Value:
            value = own.get(name.split("[")[0])
            if value is None or not domain.contains(value):
                raise LookupError(name)
            if not (isinstance(domain, Choice) and len(domain.values) == 1):
                asked[name] = (value, domain)
            return value

        try:
            return asked if self.build(ask) == recipe else None
        except LookupError:
            return None

    def leaves(self, trunk: Recipe) -> list[Recipe]:
        """Every recipe of the space that shares the trunk of ``trunk`` and makes sense, in the space's order."""
        own = {name: value for name, value in to_params(trunk).items() if name.split(".")[0] not in LEAF_FIELDS}
        parts = [_every_part(field, self.fields[field]) for field in LEAF_FIELDS]
        every: list[Params] = [{**own, **quantize, **export} for quantize, export in itertools.product(*parts)]
        return [Recipe.from_params(params) for params in every if refusal(params) is None]


def _which_kind(field: str, content: tuple[PartSpace, ...], chosen: Params) -> Question:
    """The kinds of ``field`` that go with what was chosen."""
    kinds = tuple(option.kind for option in content if _why_not(field, option, chosen) is None)
    if not kinds:
        raise SpaceError(f"space.{field}: {_why_not(field, content[0], chosen)}")
    return _which_value(f"{field}.kind", Choice(values=kinds), chosen, len(content))


def _which_value(name: str, domain: Domain, chosen: Params, size: int | None = None) -> Question:
    """The part of ``domain`` that goes with what was chosen.

    ``size`` is the number of choices that the space gives, where some are left out already.
    """
    if not isinstance(domain, Choice) or not concerns_a_rule(name) or (size is None and len(domain.values) == 1):
        return name, domain  # nothing could be left out
    values = tuple(value for value in domain.values if refusal({**chosen, name: value}) is None) or domain.values
    values = tuple(value for value in values if not wasteful({**chosen, name: value})) or values
    if len(values) < (size or len(domain.values)):
        # A sampler needs one fixed set of choices per name, so a reduced set has a name of its own.
        name = f"{name}[{'|'.join(str(value) for value in values)}]"
    return name, Choice(values=values)


def _why_not(field: str, option: PartSpace, chosen: Params) -> str | None:
    """Why no part of this kind goes with what was chosen; None if one does."""
    kind: Params = {**chosen, f"{field}.kind": option.kind}
    sentences = [refusal(kind)]
    for key, domain in option.fields.items():
        name = f"{field}.{option.kind}.{key}"
        if concerns_a_rule(name):
            reasons = [refusal({**kind, name: value}) for value in samples(domain)]
            sentences += reasons[:1] if None not in reasons else []
    return next((sentence for sentence in sentences if sentence), None)


def _every_part(field: str, content: Domain | tuple[PartSpace, ...]) -> list[Params]:
    """The flat parameters of every part of a leaf field."""
    assert isinstance(content, tuple)
    return [
        {f"{field}.kind": option.kind}
        | {f"{field}.{option.kind}.{name}": value for name, value in zip(option.fields, values, strict=True)}
        for option in content
        for values in itertools.product(*(samples(domain) for domain in option.fields.values()))
    ]
