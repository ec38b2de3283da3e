"""Gives the search dialog of the Material theme the name that it lacks for screen readers."""

from __future__ import annotations

from typing import Any

DIALOG = 'data-md-component="search" role="dialog"'


def on_post_page(output: str, /, **_: Any) -> str:
    """The page with a label on the dialog."""
    return output.replace(DIALOG, f'{DIALOG} aria-label="Search"')
