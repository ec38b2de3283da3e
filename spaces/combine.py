"""Recipes that use techniques by their names: one alone, or several that do not exclude one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spaces.content import is_mapping
from spaces.params import Value
from spaces.parts.prune import training_epochs
from spaces.recipe import Finetune, NoQat, Recipe
from spaces.techniques import TECHNIQUES, Change, Setting

# What a change of a field starts from, where it does not say otherwise. The plain recipe has no graph rewrite, so
# that the baseline is its own reference.
BASES: dict[str, dict[str, Value]] = {
    "prune": {"kind": "channels", "ratio": 0.5},
    "export": {"kind": "onnx", "fast_dfl": False},
}


class ExclusionError(ValueError):
    """Techniques that set one thing to different values; the message names it."""


def plain_recipe(setting: Setting, *, trained: bool) -> Recipe:
    """The baseline as a recipe, fine-tuned or not."""
    return _recipe({}, setting) if trained else Recipe.model_validate(_content({}, setting))


def recipe_of(names: Sequence[str], setting: Setting) -> Recipe:
    """The plain recipe with these techniques, fine-tuned.

    ``setting.epochs`` is the sum of all training: what a prune or quantization-aware training takes is taken from
    the fine-tuning, of which at least an epoch is left.

    Raises:
        ExclusionError: two of them want different values of one field.
        ValueError: the recipe refuses the combination, or a technique needs what ``setting`` does not have.
    """
    changes: dict[str, Any] = {}
    for name in names:
        for field, value in TECHNIQUES[name].fields(setting).items():
            changes[field] = _joined(changes[field], value, field) if field in changes else value
    for name in names:
        changes = {**TECHNIQUES[name].besides, **changes}
    return _recipe(changes, setting)


def own_fields(name: str, setting: Setting) -> dict[str, Any]:
    """The fields of the recipe that technique ``name`` sets, filled in.

    Epochs and learning rate of the plain fine-tuning are N and R.
    """
    changes = {**TECHNIQUES[name].fields(setting), **TECHNIQUES[name].besides}
    content = _content(changes, setting)
    fields = {field: content[field] for field in changes}
    if "finetune" in fields:
        shared = {"epochs": "N"} if fields["finetune"]["lr"] != setting.lr else {"epochs": "N", "lr": "R"}
        fields["finetune"] = {**fields["finetune"], **shared}
    return fields


def epochs_of(recipe: Recipe) -> int:
    """All epochs that ``recipe`` trains."""
    tuned = recipe.finetune.epochs if isinstance(recipe.finetune, Finetune) else 0
    rounded = 0 if isinstance(recipe.qat, NoQat) else recipe.qat.epochs
    return training_epochs(recipe.prune) + tuned + rounded


def exclude_one_another(one: str, other: str, setting: Setting) -> bool:
    """Whether two techniques want different values of one field, such as two kinds of quantization."""
    changes, others = (TECHNIQUES[name].fields(setting) for name in (one, other))
    try:
        for field in set(changes) & set(others):
            _joined(changes[field], others[field], field)
    except ExclusionError:
        return True
    return False


def _joined(one: Any, other: Any, field: str) -> Any:
    """Both changes of ``field``."""
    if is_mapping(one) and is_mapping(other):
        same = {key: _joined(one[key], other[key], f"{field}.{key}") for key in set(one) & set(other)}
        return {**one, **other, **same}
    if one != other:
        raise ExclusionError(f"{field} cannot be both {one} and {other}")
    return one


def _recipe(changes: Change, setting: Setting) -> Recipe:
    content = _content({"finetune": {}, **changes}, setting)
    recipe = Recipe.model_validate(content)
    spent = epochs_of(recipe) - setting.epochs
    if not spent:
        return recipe
    swap = content["finetune"].get("swap_epochs", 0)  # needs one more epoch than that
    content["finetune"]["epochs"] = max(1 + swap, setting.epochs - spent)
    return Recipe.model_validate(content)


def _content(changes: Change, setting: Setting) -> dict[str, Any]:
    bases = {**BASES, "finetune": {"kind": "train", "epochs": setting.epochs, "lr": setting.lr}}
    content: dict[str, Any] = {"image_size": setting.image_size, "export": BASES["export"]}
    for field, value in changes.items():
        content[field] = {**bases.get(field, {}), **value} if is_mapping(value) else value
    return content
