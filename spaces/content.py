"""Tells the shapes of YAML content apart, for code that then checks what is inside."""

from __future__ import annotations

from typing import Any, TypeGuard


def is_mapping(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether ``content`` is a mapping; its keys are strings in every file that is accepted in the end."""
    return isinstance(content, dict)


def is_list(content: object) -> TypeGuard[list[Any]]:
    """Whether ``content`` is a list."""
    return isinstance(content, list)
