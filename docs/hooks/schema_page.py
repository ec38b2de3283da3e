"""A JSON schema as a page: a section for each object with a table of its keys."""

from __future__ import annotations

import json
from typing import Any

Schema = dict[str, Any]
ABOUT = """\
Every key, from the JSON schema. With the first line below at the top of a file, editors with a YAML language server
complete and check it; the path is from the file to the schema, which the second line writes:

    # yaml-language-server: $schema={name}.schema.json

    .venv/bin/python -m search schema --of {name} --out {name}.schema.json
"""
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
KNOWN = {"type", "$ref", "enum", "const", "pattern"}  # a choice without any of these only bounds the others
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}


def schema_page(title: str, schema: Schema, name: str, note: str = "") -> str:
    """Markdown of a schema: its own keys, then those of each object that it refers to."""
    blocks = [f"# {title}", ABOUT.format(name=name), note, _keys(schema)]
    for own, section in schema["$defs"].items():
        mapping = section if "properties" in section else next(o for o in section["anyOf"] if "properties" in o)
        blocks += [f"## {own}", mapping.get("description", ""), _keys(mapping)]
    return "\n\n".join(block for block in blocks if block).replace("``", "`") + "\n"


def _keys(section: Schema) -> str:
    """A table of the keys; ``kind`` is first, since it says which section is meant."""
    required = section.get("required", [])
    lines = ["| key | what it takes | default | meaning |", "|---|---|---|---|"]
    for key, own in section.get("properties", {}).items():
        default = "needed" if key in required else _code(own["default"]) if "default" in own else ""
        cells = [f"`{key}`", _takes(own), default, " ".join(own.get("description", "").split())]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _takes(own: Schema) -> str:
    """What a key takes, in words, with links to sections."""
    if "const" in own:
        return _code(own["const"])
    if "enum" in own:
        return " · ".join(map(_code, own["enum"]))
    if "$ref" in own:
        name = own["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if own.get("type") == "array":
        return f"list of {_takes(own['items'])}" if "items" in own else "list"
    if own.get("type") == "object":
        values = own.get("additionalProperties")
        keys = f"{{{', '.join(own['properties'])}}}" if "properties" in own else "keys of your own"
        return f"{keys}: {_takes(values)}" if isinstance(values, dict) else keys
    choices = own.get("anyOf", own.get("oneOf", []))
    if choices and all(KNOWN & choice.keys() for choice in choices):
        return " or ".join(dict.fromkeys(map(_takes, choices)))
    bounds = [f"{words} {own[bound]}" for bound, words in BOUNDS.items() if bound in own]
    return ", ".join([WORDS[own["type"]], *bounds]) if "type" in own else "text"


def _code(value: Any) -> str:
    """A value as YAML in one line; a section of defaults is not written out."""
    if isinstance(value, dict) and value:
        return f"`{{kind: {value['kind']}}}`" if "kind" in value else "its defaults"
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"
