"""A space says which fields of a recipe vary and how; it is read from YAML and asked by a sampler.

Fields are asked in the order of ``Recipe``; a field with several kinds is asked for its kind first and then for
the fields of that kind alone, so the space is conditional.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError

from spaces.content import is_list, is_mapping
from spaces.domain import Choice, Domain, Range, SamplerTrial, parse_domain
from spaces.params import Params, Value, from_params, to_params
from spaces.recipe import LEAF_FIELDS, STRIDE, Part, Recipe

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

    def build(self, ask: Ask) -> Recipe:
        """The recipe that the answers of ``ask(name, domain)`` describe; constants are asked about too."""
        params: Params = {}
        for field, content in self.fields.items():
            if not isinstance(content, tuple):
                params[field] = ask(field, content)
                continue
            options = [option for option in content if _makes_sense(field, option.kind, params)] or content
            kinds = tuple(option.kind for option in options)
            # A sampler needs one fixed set of choices per name, so a reduced set has a name of its own.
            name = f"{field}.kind" if len(options) == len(content) else f"{field}.kind[{'|'.join(kinds)}]"
            kind = ask(name, Choice(values=kinds))
            params[f"{field}.kind"] = kind
            part = next(option for option in options if option.kind == kind)
            for key, domain in part.fields.items():
                params[f"{field}.{kind}.{key}"] = ask(f"{field}.{kind}.{key}", domain)
        return from_params(params)

    def suggest(self, trial: SamplerTrial) -> Recipe:
        """A recipe drawn by ``trial``, an Optuna trial or anything with its ``suggest_*`` methods."""
        return self.build(lambda name, domain: domain.suggest(trial, name))

    def nearest(self, preferences: Params) -> Recipe:
        """The recipe of this space that comes closest to ``preferences``, field by field."""

        def ask(name: str, domain: Domain) -> Value:
            wanted = preferences.get(name.split("[")[0])
            return domain.nearest(wanted) if wanted is not None else _middle(domain)

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
        """Every recipe of the space that shares the trunk of ``trunk``, in the space's order."""
        parts = [_every_part(self.fields[field]) for field in LEAF_FIELDS]
        return [
            Recipe.model_validate({**trunk.model_dump(), **dict(zip(LEAF_FIELDS, chosen, strict=True))})
            for chosen in itertools.product(*parts)
        ]


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
    if "none" in _kinds_of(fields["finetune"]) and "none" not in _kinds_of(fields["distill"]):
        raise SpaceError(
            "space.distill: a teacher can only teach while the student trains; "
            "add kind none, or take kind none out of space.finetune"
        )
    if _kinds_of(fields["finetune"]) == {"none"} and any(_trains(option) for option in _options(fields["prune"])):
        raise SpaceError(
            "space.prune: a prune that trains by itself does so with the settings of a finetune step; "
            "give space.finetune kind train, or make step_epochs 0"
        )
    return Space(name=name, fields=fields)


def _makes_sense(field: str, kind: str, chosen: Params) -> bool:
    """Whether the search should draw this kind, where the space gives others, after what it has already chosen."""
    match field, kind:
        case "finetune", "none":  # a damaged model that is not trained again is a trial thrown away
            kinds = {chosen[f"{part}.kind"] for part in ("structure", "prune", "sparsify")}
            return kinds == {"none"} and chosen["activation"] == "silu"
        case "distill", "none":
            return True
        case "distill", _:
            return chosen["finetune.kind"] != "none"
        case _:
            return True


def _kinds(hint: Any) -> dict[str, type[Part]]:
    """The part types of a field by their kind; empty for a plain field."""
    types = get_args(hint) or (hint,)
    parts = [part for part in types if isinstance(part, type) and issubclass(part, Part)]
    return {part.model_fields["kind"].default: part for part in parts}


def _kinds_of(content: Domain | tuple[PartSpace, ...]) -> set[str]:
    """The kinds that a space gives a field with parts."""
    return {option.kind for option in _options(content)}


def _options(content: Domain | tuple[PartSpace, ...]) -> tuple[PartSpace, ...]:
    assert isinstance(content, tuple)
    return content


def _trains(prune: PartSpace) -> bool:
    """Whether a kind of pruning may train by itself."""
    epochs = [domain for name, domain in prune.fields.items() if name in {"step_epochs", "sparsity_epochs"}]
    return any(value != 0 for domain in epochs for value in _samples(domain))


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
    for values in itertools.product(*(_samples(domain) for domain in fields.values())):
        _validate(part, {"kind": kind, **dict(zip(fields, values, strict=True))}, where)
    return PartSpace(kind=kind, fields=fields)


def _checked(field: str, domain: Domain) -> Domain:
    for value in _samples(domain):
        _validate(Recipe, {"image_size": STRIDE, field: value}, "space")
    return domain


def _validate(model: type[BaseModel], content: dict[str, Any], where: str) -> None:
    try:
        model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *(str(step) for step in first["loc"])])
        raise SpaceError(f"{key}: {first['msg']}; got {first['input']!r}") from error


def _samples(domain: Domain) -> tuple[Value, ...]:
    """Values that show whether all of a domain is allowed: every choice; of a range its ends and one between."""
    if isinstance(domain, Choice):
        return domain.values
    step = domain.step or (1 if domain.integer else (domain.high - domain.low) / math.e)  # a whole number by no chance
    return (domain.low, domain.nearest(domain.low + step), domain.nearest(domain.high))


def _middle(domain: Domain) -> Value:
    """A constant, the first choice, or the middle of a range (the geometric one on a log scale)."""
    if isinstance(domain, Choice):
        return domain.values[0]
    return domain.nearest(math.sqrt(domain.low * domain.high) if domain.log else (domain.low + domain.high) / 2)


def _every_part(content: Domain | tuple[PartSpace, ...]) -> list[dict[str, Value]]:
    """Every part of a leaf field, as the content of its type."""
    assert isinstance(content, tuple)
    return [
        {"kind": option.kind, **dict(zip(option.fields, values, strict=True))}
        for option in content
        for values in itertools.product(*(_samples(domain) for domain in option.fields.values()))
    ]
