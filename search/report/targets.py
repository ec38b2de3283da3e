"""The section of a report on a study's other targets: a front for each, and how far they agree."""

from __future__ import annotations

from typing import Any

from search.report.tables import front_rows, header, markdown_table


def targets_section(result: dict[str, Any]) -> str:
    """The section as Markdown; empty for a study of one target."""
    if not result["agreement"]:
        return ""
    found = "\n\n".join(_front(name, own) for name, own in result["others"].items())
    told = _INTRODUCTION.format(main=result["target"])
    return "\n\n".join(["## On other targets", told, found, _agreement(result["agreement"])])


_INTRODUCTION = """The search was for {main}. The same recipes were measured on the other targets, each beside the
baseline there, and this is what is best there of what the search tried."""


def _front(name: str, own: dict[str, Any]) -> str:
    if not own["front"]:
        return f"### {name}\n\nNo record is complete there and within the constraints."
    return f"### {name}\n\nHypervolume {own['hypervolume']:.4f}.\n\n{markdown_table(header(own), front_rows(own))}"


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
