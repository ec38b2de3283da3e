"""The JSON schema of a space, so that editors complete and check it.

It follows from the recipe's: each of its plain fields may have a domain instead of a value, each field of parts a list
of them. What cannot go together (``spaces/sense.py``) is not in it.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from spaces.recipe import LEAF_FIELDS, Recipe

Schema = dict[str, Any]
DRAFT = GenerateJsonSchema.schema_dialect


class Untitled(GenerateJsonSchema):
    """Pydantic's schema, without a title for each key that repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Whether a key gets a title."""
        return False


def space_schema() -> Schema:
    """A JSON schema (draft 2020-12) of what ``parse_space`` reads."""
    recipe = Recipe.model_json_schema(schema_generator=Untitled)
    parts: Schema = recipe["$defs"]
    leaves = {name for field in LEAF_FIELDS for name in _parts(recipe["properties"][field])}
    return {
        "$schema": DRAFT,
        "title": "A space of yolo-front",
        "description": "Which fields of a recipe vary, and how. What is left out keeps the recipe's default.",
        "type": "object",
        "properties": {name: _field(name, own) for name, own in recipe["properties"].items()},
        "additionalProperties": False,
        "$defs": {name: _part(own, ranges=name not in leaves) for name, own in parts.items()},
    }


def _parts(field: Schema) -> list[str]:
    """The names of a field's parts; none for a plain field."""
    references = field.get("oneOf", [field])
    return [own["$ref"].rpartition("/")[2] for own in references if "$ref" in own]


def _field(name: str, own: Schema) -> Schema:
    if parts := _parts(own):
        options = [{"$ref": f"#/$defs/{part}"} for part in parts]
        return {
            "anyOf": [*options, {"type": "array", "items": {"anyOf": options}, "minItems": 1}],
            "default": own["default"],
        }
    domain = _domain(own, ranges=True)
    if name == "image_size":
        scales = {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1}
        scale = {
            "description": "Shares of the study's image_size, rounded to multiples of 32 px.",
            "type": "object",
            "properties": {"scale": scales},
            "required": ["scale"],
            "additionalProperties": False,
        }
        domain["anyOf"].append(scale)
    return domain


def _part(own: Schema, *, ranges: bool) -> Schema:
    fields = {
        key: value if key == "kind" else _domain(value, ranges=ranges) for key, value in own["properties"].items()
    }
    return {**own, "properties": fields, "required": ["kind", *own.get("required", [])]}


def _domain(own: Schema, *, ranges: bool) -> Schema:
    """A value, a list of values, or a range, of the values that ``own`` allows."""
    value = {key: item for key, item in own.items() if key not in ("default", "description")}
    kinds: list[Schema] = [value, {"type": "array", "items": value, "minItems": 1}]
    if ranges and value.get("type") in ("integer", "number"):
        ends = {key: item for key, item in value.items() if key != "multipleOf"}
        kinds.append(_range(ends))
    return {"anyOf": kinds, **{key: own[key] for key in ("default", "description") if key in own}}


def _range(end: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {
            "low": end,
            "high": end,
            "step": {"type": end["type"], "exclusiveMinimum": 0},
            "log": {"type": "boolean"},
        },
        "required": ["low", "high"],
        "additionalProperties": False,
    }
