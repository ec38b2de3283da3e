"""Lets ``nav`` in ``mkdocs.yml`` name pages by a pattern: ``adr/*.md`` is every page there with no entry of its own."""

from __future__ import annotations

from fnmatch import fnmatch
from posixpath import dirname
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import Files


@event_priority(-100)  # when all pages are there
def on_files(files: Files, config: MkDocsConfig) -> None:
    """Replaces each pattern by the pages that it stands for, by name."""
    pages = sorted(file.src_uri for file in files.documentation_pages() if file.inclusion.is_in_nav())
    named = set(_names(config.nav))
    config.nav = _expanded(config.nav, [page for page in pages if page not in named])


def _names(entry: Any) -> list[str]:
    """Every page and pattern in a part of the nav."""
    if isinstance(entry, dict):
        return _names(list(entry.values()))
    return [name for one in entry for name in _names(one)] if isinstance(entry, list) else [entry]


def _expanded(entry: Any, free: list[str]) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(own, free) for title, own in entry.items()}
    if not isinstance(entry, list):
        return entry
    expanded: list[Any] = []
    for own in entry:
        if isinstance(own, str) and "*" in own:
            expanded += [page for page in free if fnmatch(page, own) and dirname(page) == dirname(own)]
        else:
            expanded.append(_expanded(own, free))
    return expanded
