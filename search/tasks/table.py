"""The tasks, and which of them some data, a model or a recipe belong to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from search.errors import UserError
from search.tasks.classify import CLASSIFY
from search.tasks.detect import DETECT
from search.tasks.kind import TaskKind
from spaces.domain import Choice
from spaces.params import to_params
from spaces.recipe import Recipe
from spaces.space import Space

KINDS: dict[str, TaskKind] = {"detect": DETECT, "classify": CLASSIFY}


def kind_of_path(path: Path) -> TaskKind:
    """The task of the data that the user names: a folder is for classification, a file for detection."""
    return CLASSIFY if path.is_dir() else DETECT


def kind_of_view(view: Path) -> TaskKind:
    """The task of a study's view of its data."""
    return KINDS[view_content(view).get("task", "detect")]  # studies from before there was another say nothing


def view_content(view: Path) -> dict[str, Any]:
    """What the ``data.yaml`` of a view says."""
    return yaml.safe_load(view.read_text(encoding="utf-8"))


def kind_of_model(model: Any) -> TaskKind:
    """The task of a model, by its head.

    Raises:
        ValueError: it has none of the heads that are known here.
    """
    for module in model.modules():
        for kind in KINDS.values():
            if kind.outputs(module):
                return kind
    raise ValueError(f"a {type(model).__name__} has no head of {' or '.join(kind.noun for kind in KINDS.values())}")


def check_recipe(recipe: Recipe, kind: TaskKind) -> None:
    """Refuses a recipe with a part that makes no sense for ``kind``. Raises UserError."""
    _check((f"{name}={value}" for name, value in to_params(recipe).items()), kind, "recipe")


def check_space(space: Space, kind: TaskKind) -> None:
    """Refuses a space from which such recipes could be drawn. Raises UserError."""
    for field, content in space.fields.items():
        for option in content if isinstance(content, tuple) else ():
            _check([f"{field}.kind={option.kind}"], kind, f"space {space.name}")
            for name, domain in option.fields.items():
                values = domain.values if isinstance(domain, Choice) else ()
                _check((f"{field}.{option.kind}.{name}={value}" for value in values), kind, f"space {space.name}")


def _check(choices: Iterable[str], kind: TaskKind, where: str) -> None:
    for choice in choices:
        for pattern, reason in kind.no_use:
            if re.fullmatch(pattern, choice):
                raise UserError(f"{where}: {choice} makes no sense for {kind.noun}: {reason}")
