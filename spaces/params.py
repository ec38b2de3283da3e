"""Flat sampler parameters: ``prune.kind``, ``prune.channels.ratio``, ``image_size``, …

A part's fields are named under its kind, so that two kinds may give one field name different meanings and ranges.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

Value = bool | int | float | str
Params = dict[str, Value]


def part_params(field: str, part: BaseModel) -> Params:
    """The flat parameters of one part under ``field``: its kind, then its fields under the kind."""
    values = part.model_dump(mode="json")
    kind = values.pop("kind")
    return {f"{field}.kind": kind, **{f"{field}.{kind}.{name}": value for name, value in values.items()}}


def to_params(recipe: BaseModel) -> Params:
    """The flat parameters of ``recipe``; ``Recipe.from_params`` turns them back into an equal recipe."""
    params: Params = {}
    for field in type(recipe).model_fields:
        value = getattr(recipe, field)
        params |= part_params(field, value) if isinstance(value, BaseModel) else {field: value}
    return params


def nested(params: Params, fields: Iterable[str]) -> dict[str, Any]:
    """``params`` as the content of a recipe with ``fields``; those of kinds that were not chosen are left out."""
    content: dict[str, Any] = {}
    for field in fields:
        kind = params.get(f"{field}.kind")
        if kind is None:
            if field in params:
                content[field] = params[field]
            continue
        prefix = f"{field}.{kind}."
        own = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
        content[field] = {"kind": kind, **own}
    return content
