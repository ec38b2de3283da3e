"""Flat sampler parameters: ``prune.kind``, ``prune.channels.ratio``, ``image_size``, …

A part's fields are named under its kind, so that two kinds may give one field name different meanings and ranges.
"""

from __future__ import annotations

from collections.abc import Collection
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


def nested(params: Params, fields: Collection[str]) -> dict[str, Any]:
    """``params`` as the content of a recipe with ``fields``; those of kinds that were not chosen are left out."""
    kinds = {field: params.get(f"{field}.kind") for field in fields}
    content: dict[str, Any] = {field: {"kind": kind} for field, kind in kinds.items() if kind is not None}
    for name, value in params.items():
        field, *rest = name.split(".", 2)
        if not rest and field in fields:
            content.setdefault(field, value)
        elif len(rest) == 2 and field in content and rest[0] == content[field]["kind"]:
            content[field][rest[1]] = value
    return content
