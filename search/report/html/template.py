"""Pages in one file: their templates, and what names their script and style in a policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent


def template(name: str) -> str:
    """A file of the page."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def filled(text: str, parts: Mapping[str, str]) -> str:
    """``text`` with each ``{{name}}`` replaced, in one pass: a value that looks like a mark stays as it is."""
    before, *rest = text.split("{{")
    return before + "".join(parts[part.partition("}}")[0]] + part.partition("}}")[2] for part in rest)


def source_hash(text: str) -> str:
    """The source expression of Content Security Policy Level 3 for an inline element with this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
