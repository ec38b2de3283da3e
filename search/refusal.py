"""What Pydantic refused, as one sentence for the user: the key, what was wrong and what is allowed."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from search.storage.urls import is_url, secret_in

SECRET = "secret"  # the type of a refusal that must not repeat what was given


def first_refusal(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that ``model`` refused in its content."""
    first = error.errors()[0]
    key = ".".join(str(step) for step in first["loc"]) or "study"
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}; allowed are {', '.join(_section(model, first['loc'][:-1]).model_fields)}"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == SECRET:
        return f"{key}: {first['msg']}"  # and not what it is
    return f"{key}: {first['msg']}; got {first['input']!r}"


def refuse_secret(url: str | None, advice: str) -> str | None:
    """``url``, if it holds no secret: a study file is read by everybody who reads the study."""
    if url is not None and is_url(url) and (secret := secret_in(url)):
        raise PydanticCustomError(SECRET, "{text}", {"text": f"a study file must not hold {secret}; {advice}"})
    return url


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
