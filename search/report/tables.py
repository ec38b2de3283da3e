"""The front as rows of text, the same for the terminal and for the written report."""

from __future__ import annotations

from typing import Any

from search.front import PICKS
from search.results import choose
from spaces.describe import describe
from spaces.recipe import Recipe

COLUMNS = ("drop", "latency", "interval", "p50 ms", "size", "MB", "record", "pick", "recipe")
FOLDING = frozenset({"pick", "recipe"})  # columns that may take several lines in a narrow terminal


def header(result: dict[str, Any]) -> tuple[str, ...]:
    """The names of the columns, of which the first is the metric."""
    return (result["metric"], *COLUMNS)


def front_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The baseline and every member of the front, fastest first, with the picks that each is."""
    picks: dict[str, list[str]] = {}
    if result["front"]:
        for name in PICKS:
            picks.setdefault(choose(result, name)["record_id"], []).append(name)
    rows = [_row(member, ", ".join(picks.get(member["record_id"], []))) for member in result["front"]]
    return [*rows, _row(result["baseline"], "baseline")]


def _row(member: dict[str, Any], pick: str) -> tuple[str, ...]:
    low, high = member["latency_ratio_ci"]
    return (
        f"{member['accuracy']:.3f}",
        f"{member['accuracy_drop']:+.3f}",
        f"×{member['latency_ratio']:.3f}",
        f"{low:.3f}–{high:.3f}",
        f"{member['latency_ms_p50']:.2f}",
        f"×{member['size_ratio']:.3f}",
        f"{member['size_bytes'] / 1e6:.2f}",
        member["record_id"],
        pick,
        describe(Recipe.model_validate(member["recipe"])),
    )
