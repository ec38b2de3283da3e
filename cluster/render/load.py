"""Reads a cluster spec; each refusal names the key, what was wrong and what is allowed, and never the value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cluster.errors import UserError
from cluster.render.spec import ClusterSpec


def load_spec(path: Path | None) -> ClusterSpec:
    """The spec in ``path``, or the default one. Raises UserError if it is missing or something in it is refused."""
    if path is None:
        return ClusterSpec()
    if not path.is_file():
        raise UserError(f"there is no cluster spec {path}; leave --spec out for the default one")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        # The parser's own text would repeat the line, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML" + (f", line {mark.line + 1}" if mark else "")) from None
    return parse_spec({} if content is None else content, where=str(path))


def parse_spec(content: Any, *, where: str) -> ClusterSpec:
    """A spec from YAML content. Raises UserError with the first refusal."""
    if not isinstance(content, dict):
        raise UserError(f"{where} is no mapping; a cluster spec has keys such as workers and bench")
    try:
        return ClusterSpec.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_refusal(error)}") from None


def _first_refusal(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    # The tag of a union is a step of pydantic's, not a key of the file's.
    steps = [step for step in first["loc"] if step not in {"volume", "folder", "nfs", "bucket", "[key]"}]
    key = ".".join(str(step) for step in steps)
    message = first["msg"].removeprefix("Value error, ")
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {key}; allowed are {', '.join(_allowed(first['loc'][:-1]))}"
        case "missing":
            return f"{key} is missing"
        case _:
            return f"{key}: {message}" if key else message


def _allowed(path: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at ``path``."""
    sections: list[type[BaseModel]] = [ClusterSpec]
    for step in path:
        fields = [
            section.model_fields[step] for section in sections if isinstance(step, str) and step in section.model_fields
        ]
        if fields:
            sections = _sections(fields[0].annotation)
        elif isinstance(step, str):  # the tag of a union
            sections = [section for section in sections if section.model_fields["kind"].default == step]
    return [name for section in sections for name in section.model_fields]


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field may hold, alone, in a union or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
