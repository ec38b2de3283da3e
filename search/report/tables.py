"""The front as rows of text, the same for the terminal and for the written report."""

from __future__ import annotations

from typing import Any

from search.front import PICKS
from search.results import choose
from spaces.describe import describe
from spaces.recipe import Recipe

COLUMNS = ("drop", "latency", "interval", "p50 ms", "size", "MB", "record", "sure", "pick", "recipe")
FOLDING = frozenset({"pick", "recipe"})  # columns that may take several lines in a narrow terminal


def header(result: dict[str, Any]) -> tuple[str, ...]:
    """The names of the columns, of which the first is the metric; times of several pictures at once say so."""
    batch = result["baseline"]["latency_batch"]
    times = {"p50 ms": f"p50 ms of {batch}"} if batch > 1 else {}
    return (result["metric"], *(times.get(name, name) for name in COLUMNS))


def front_rows(result: dict[str, Any], pick: str | None = None) -> list[tuple[str, ...]]:
    """The baseline and every member of the front, or ``pick`` alone, fastest first, with the picks that each is."""
    picks: dict[str, list[str]] = {}
    if result["front"]:
        for name in PICKS:
            picks.setdefault(choose(result, name)["record_id"], []).append(name)
    members = result["front"] if pick is None else [choose(result, pick)]
    rows = [_row(member, ", ".join(picks.get(member["record_id"], []))) for member in members]
    return [*rows, _row(result["baseline"], "baseline")]


def how_sure(member: dict[str, Any]) -> str:
    """Whether a member's place on the front is beyond the noise; empty if that of its accuracy is not known."""
    if member["accuracy_ci"] is None:
        return ""
    return "tie" if member["ties"] else "no" if member["rivals"] else "yes"


def plus_minus(bounds: list[float] | None) -> str:
    """Half of an interval's width, to be put behind a number; empty if it is not known."""
    return "" if bounds is None else f" ±{(bounds[1] - bounds[0]) / 2:.3f}"


def _row(member: dict[str, Any], pick: str) -> tuple[str, ...]:
    low, high = member["latency_ratio_ci"]
    return (
        f"{member['accuracy']:.3f}{plus_minus(member['accuracy_ci'])}",
        f"{member['accuracy_drop']:+.3f}{plus_minus(member['accuracy_drop_ci'])}",
        f"×{member['latency_ratio']:.3f}",
        f"{low:.3f}–{high:.3f}",
        f"{member['latency_ms_quiet']:.2f}",
        f"×{member['size_ratio']:.3f}",
        f"{member['size_bytes'] / 1e6:.2f}",
        member["record_id"],
        how_sure(member),
        pick,
        describe(Recipe.model_validate(member["recipe"])),
    )


def markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
