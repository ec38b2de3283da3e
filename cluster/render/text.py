"""YAML text from plain data."""

from __future__ import annotations

from typing import Any, cast

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out each time: anchors are hard to edit, and some readers refuse them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Text of several lines line by line, for a reader."""
    return cast("Any", dumper).represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def to_yaml(*documents: dict[str, Any], header: str) -> str:
    """The documents in one YAML file, below a comment of one line or more."""
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    body = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return comment + body
