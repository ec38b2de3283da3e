"""What Pydantic refused, as one sentence for the user: the key, what was wrong and what is allowed."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def first_refusal(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that ``model`` refused in its content."""
    first = error.errors()[0]
    key = ".".join(str(step) for step in first["loc"]) or "study"
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}; allowed are {', '.join(_section(model, first['loc'][:-1]).model_fields)}"
    if first["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {first['msg']}; got {first['input']!r}"


def _section(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model of the section at ``path``, whose numbers are places in lists."""
    for step in path:
        if isinstance(step, str):
            model = _model_in(model.model_fields[step].annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel]:
    """The one model in an annotation such as ``Stall``, ``Stall | None`` or ``tuple[Target, ...]``."""
    kinds = [annotation, *get_args(annotation)]
    [found] = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return found
