"""What a person sees when a study has ended: the front as a table, or all in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.report.tables import FOLDING, front_rows, header
from search.results import choose


def print_front(result: dict[str, Any], folder: Path) -> None:
    """The front as a table, where the files are, and what to type next."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a log or a pipe has no edge to fold at
    table = Table(box=None, pad_edge=False)
    for name in header(result):
        table.add_column(name, no_wrap=name not in FOLDING, overflow="fold")
    for row in front_rows(result):
        table.add_row(*row)
    console.print(table)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(result["states"].items()))
    console.print(f"\n{result['records']} records ({counts}), hypervolume {result['hypervolume']:.4f}")
    console.print(f"Everything is in {folder}; the report is {folder}/report.html (and report.md)", soft_wrap=True)
    console.print(f"Next: python -m search front {folder} --pick recommended", soft_wrap=True)


def print_line(result: dict[str, Any], folder: Path) -> None:
    """Where the study is and what its front is, in one line."""
    front = result["front"]
    told = f"{len(front)} on the front"
    if front:
        best = choose(result, "recommended")
        told += f"; recommended {best['record_id']}: {result['metric']} {best['accuracy']:.3f}, latency "
        told += f"×{best['latency_ratio']:.3f}, {best['size_bytes'] / 1e6:.2f} MB"
    print(f"{folder}: {told}")
