"""Reads a space from YAML, and refuses what cannot be searched before anything is."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError

from spaces.content import is_list, is_mapping
from spaces.domain import Choice, Domain, Range, parse_domain, samples
from spaces.params import Value
from spaces.recipe import LEAF_FIELDS, STRIDE, Part, Recipe
from spaces.space import PartSpace, Space, SpaceError

DRAWS = 200  # of a new space, to see whether it ever contradicts itself


def load_space(source: str | Path, *, image_size: int) -> Space:
    """The preset called ``source``, or the space in the YAML file at that path.

    Args:
        source: a preset's name (see ``preset_names``) or a path.
        image_size: the study's input size in pixels, for spaces that give sizes as a scale of it.

    Raises:
        SpaceError: there is no such space, or it is refused.
    """
    path = Path(source)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise SpaceError(f"space: there is no file {path}")
        text = path.read_text(encoding="utf-8")
    elif source in preset_names():
        text = (resources.files("spaces") / "presets" / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        raise SpaceError(f"space: unknown preset {source!r}; presets are {', '.join(preset_names())}")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpaceError(f"space: {source} is not valid YAML: {error}") from error
    return parse_space(content, name=path.stem, image_size=image_size)


def preset_names() -> list[str]:
    """The names of the spaces that come with this package."""
    files = (resources.files("spaces") / "presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def parse_space(content: Any, *, name: str, image_size: int) -> Space:
    """A space from YAML content; fields that it leaves out keep the recipe's defaults. Raises SpaceError."""
    if not is_mapping(content):
        raise SpaceError(f"space: expected fields of a recipe, got {content!r}")
    unknown = [key for key in content if key not in Recipe.model_fields]
    if unknown:
        raise SpaceError(f"space: unknown key {unknown[0]!r}; allowed are {', '.join(Recipe.model_fields)}")
    hints = get_type_hints(Recipe)
    fields: dict[str, Domain | tuple[PartSpace, ...]] = {}
    for field, info in Recipe.model_fields.items():
        value = content.get(field)
        if field == "image_size":
            fields[field] = _image_sizes({"scale": [1.0]} if value is None else value, image_size)
        elif kinds := _kinds(hints[field]):
            default = info.default.model_dump() if value is None else value
            fields[field] = _parts(default, kinds, field)
        else:
            fields[field] = _checked(field, _domain(info.default if value is None else value, f"space.{field}"))
    space = Space(name=name, fields=fields)
    _try_out(space)
    return space


def _kinds(hint: Any) -> dict[str, type[Part]]:
    """The part types of a field by their kind; empty for a plain field."""
    types = get_args(hint) or (hint,)
    parts = [part for part in types if isinstance(part, type) and issubclass(part, Part)]
    return {part.model_fields["kind"].default: part for part in parts}


def _domain(content: Any, where: str) -> Domain:
    try:
        return parse_domain(content, where)
    except ValueError as error:
        raise SpaceError(str(error)) from error


def _image_sizes(content: Any, image_size: int) -> Domain:
    if not is_mapping(content) or set(content) != {"scale"}:
        return _checked("image_size", _domain(content, "space.image_size"))
    scales = content["scale"]
    if not is_list(scales) or not scales or not all(isinstance(s, (int, float)) and 0 < s < math.inf for s in scales):
        raise SpaceError(f"space.image_size: scale needs a list of numbers above 0, got {scales!r}")
    sizes = {max(STRIDE, round(image_size * scale / STRIDE) * STRIDE) for scale in scales}
    return _checked("image_size", Choice(values=tuple(sorted(sizes))))


def _parts(content: Any, kinds: Mapping[str, type[Part]], field: str) -> tuple[PartSpace, ...]:
    options = content if is_list(content) and content else [content]
    parts: list[PartSpace] = []
    for option in options:
        if not is_mapping(option) or option.get("kind") not in list(kinds):  # a list is no key of a mapping
            raise SpaceError(f"space.{field}: each option needs a kind, one of {', '.join(kinds)}; got {option!r}")
        parts.append(_part(option, kinds[option["kind"]], field))
    if len({part.kind for part in parts}) < len(parts):
        raise SpaceError(f"space.{field}: a kind is given twice; give its fields lists of values instead")
    return tuple(parts)


def _part(option: dict[str, Any], part: type[Part], field: str) -> PartSpace:
    kind, where = option["kind"], f"space.{field}.{option['kind']}"
    own = {name: info for name, info in part.model_fields.items() if name != "kind"}
    unknown = [key for key in option if key not in own and key != "kind"]
    if unknown:
        raise SpaceError(f"{where}: unknown key {unknown[0]!r}; allowed are {', '.join(own) or 'none'}")
    fields: dict[str, Domain] = {}
    for name, info in own.items():
        if name not in option and info.is_required():
            raise SpaceError(f"{where}: {name} is missing")
        fields[name] = _domain(option.get(name, info.default), f"{where}.{name}")
        if field in LEAF_FIELDS and isinstance(fields[name], Range):
            raise SpaceError(f"{where}.{name}: every value is measured on each trained model, so give a list, no range")
    for values in _some_of_all(fields):
        _validate(part, {"kind": kind, **values}, where)
    return PartSpace(kind=kind, fields=fields)


def _some_of_all(fields: Mapping[str, Domain]) -> Iterator[dict[str, Value]]:
    """Every value of every three fields together, the others at their first: no rule of a part is about more."""
    found = {name: samples(domain) for name, domain in fields.items()}
    first = {name: values[0] for name, values in found.items()}
    varying = [name for name, values in found.items() if len(values) > 1]
    for names in itertools.combinations(varying, min(3, len(varying))):
        for values in itertools.product(*(found[name] for name in names)):
            yield {**first, **dict(zip(names, values, strict=True))}


def _checked(field: str, domain: Domain) -> Domain:
    for value in samples(domain):
        _validate(Recipe, {"image_size": STRIDE, field: value}, "space")
    return domain


def _validate(model: type[BaseModel], content: dict[str, Any], where: str) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *(str(step) for step in first["loc"])])
        raise SpaceError(f"{key}: {first['msg']}; got {first['input']!r}") from error


def _try_out(space: Space) -> None:
    """Raises SpaceError if the space can lead to choices that cannot go together; ``build`` says which."""
    draw = random.Random(0)
    for _ in range(DRAWS):
        try:
            space.build(lambda name, domain: draw.choice(samples(domain)))
        except ValidationError as error:
            raise SpaceError(f"space: {error.errors()[0]['msg']}") from error
