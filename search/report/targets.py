"""The section of a report on a study's other targets: a front for each, and how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.elsewhere import seen_from
from search.final import Finals
from search.report.finals import again_text, tested_text
from search.report.tables import front_rows, header, markdown_table
from search.store import Records


def targets_section(result: dict[str, Any], store: Records, folder: Path) -> str:
    """The section as Markdown, of a study's result, records and folder; empty for a study of one target."""
    if not result["agreement"]:
        return ""
    found = [_target(name, own, store, Finals(folder, name)) for name, own in result["others"].items()]
    told = _INTRODUCTION.format(main=result["target"])
    return "\n\n".join(["## On other targets", told, *found, _agreement(result["agreement"])])


_INTRODUCTION = """The search was for {main}. The same recipes were measured on the other targets, each beside the
baseline there, and this is what is best there of what the search tried."""
_SEARCHED = "Not measured again: these are figures of the search, the best of which flatter."


def _target(name: str, own: dict[str, Any], store: Records, finals: Finals) -> str:
    """The front on one of them, and what was measured there after the search."""
    if not own["front"]:
        return f"### {name}\n\nNo record is complete there and within the constraints."
    table = markdown_table(header(own), front_rows(own))
    again, tested = again_text(own, seen_from(store, name), finals), tested_text(own, finals)
    heading = f"### {name}\n\nHypervolume {own['hypervolume']:.4f}."
    return "\n\n".join(filter(None, [heading, table, again or _SEARCHED, tested and f"On the test split. {tested}"]))


def _agreement(rows: list[dict[str, Any]]) -> str:
    head = ("targets", "records on both", "tau of latency ratios", "tau of accuracies")
    cells = [
        (" and ".join(row["targets"]), str(row["records"]), _tau(row["latency_tau"]), _tau(row["accuracy_tau"]))
        for row in rows
    ]
    return (
        "### How far targets agree\n\nKendall's tau: 1 if every two recipes are in the same order on both, 0 if half "
        f"of them are, -1 if none is.\n\n{markdown_table(head, cells)}"
    )


def _tau(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
