"""How many workers pay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.app import Json, app
from search.errors import UserError

PARTS = ("virtual", "search", "controller", "bench", "machine")
WORKERS = "1,2,4,8,16,32,64,128,256"


def _seconds(what: str) -> typer.models.OptionInfo:
    return typer.Option(min=0, help=f"Seconds {what}.", rich_help_panel="What the virtual part charges for")


@app.command(epilog="Example: python -m search scaling --parts virtual --workers 1,16,256 --json")
def scaling(
    parts: Annotated[str, typer.Option(help=f"What to measure, with commas between: {', '.join(PARTS)}.")] = PARTS[0],
    workers: Annotated[str, typer.Option(help="Numbers of workers, the reference first.")] = WORKERS,
    seeds: Annotated[int, typer.Option(min=1, help="Worlds of the search part.")] = 5,
    records: Annotated[list[Path] | None, typer.Option(help="Study folders that trials are drawn from.")] = None,
    suggest: Annotated[float, _seconds("of the driver for a suggestion")] = 0.05,
    decide: Annotated[float, _seconds("of the driver for a rung")] = 0.01,
    end: Annotated[float, _seconds("of the driver for a trial's end")] = 0.05,
    start: Annotated[float, _seconds("from a suggestion to the trial's work")] = 0.1,
    quick: Annotated[float, _seconds("of a bench for a file before training")] = 5.0,
    full: Annotated[float, _seconds("of a bench for a file after training")] = 8.0,
    as_json: Json = False,
) -> None:
    """Shows how much of its time each of so many workers is at work, and what the others wait for.

    virtual: trials of recorded studies in simulated time; search: what suggesting at once costs the search, in
    simulated worlds; controller: Ray Tune's own controller with trials that sleep; bench: how long files of the
    studies take there; machine: real studies on this machine's cores.
    """
    from search.scaling.command import run
    from search.scaling.virtual import Costs

    costs = Costs(suggest=suggest, decide=decide, end=end, start=start, quick=quick, full=full)
    run(
        parts=_known(parts),
        workers=_counts(workers),
        costs=costs,
        seeds=seeds,
        records=records or [],
        as_json=as_json,
    )


def _known(text: str) -> list[str]:
    if unknown := [word for word in text.split(",") if word not in PARTS]:
        raise UserError(f"--parts: there is no {unknown[0]!r}; known are {', '.join(PARTS)}")
    return text.split(",")


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UserError(f"--workers {text}: numbers from 1 on, with commas between, such as 1,2,4")
    return counts
