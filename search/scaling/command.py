"""What ``python -m search scaling`` does: runs the parts that were asked for and shows them as tables or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from search.measure.host import host_info
from search.scaling.lives import Life, measurements, read_lives
from search.scaling.virtual import Costs, benches_for, simulate
from search.simulate.command import RECORDS
from search.simulate.recorded import read

EACH = 12  # sleeping trials for every worker
SHORTER = 60.0
FILES = 5  # of each study that a bench times


def run(
    *, parts: Sequence[str], workers: Sequence[int], costs: Costs, seeds: int, records: Sequence[Path], as_json: bool
) -> None:
    """Runs the parts and prints what they found.

    Raises:
        UserError: the records do not tell what a part needs.
    """
    folders = list(records) or [folder for folder in RECORDS if (folder / "study.yaml").is_file()]
    found: dict[str, Any] = {"host": asdict(host_info()), "records": [folder.name for folder in folders]}
    for part in parts:
        typer.echo(f"{part} …", err=True)
        found[part] = _RUN[part](folders, workers, costs, seeds)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n\n".join(table(found[part], part) for part in parts))


def _virtual(folders: Sequence[Path], workers: Sequence[int], costs: Costs, seeds: int) -> dict[str, Any]:
    lives = read_lives(folders)
    rows: list[dict[str, Any]] = []
    for count in workers:
        enough = benches_for(lives, costs, workers=count)
        one, many, free = (simulate(lives, costs, workers=count, benches=own) for own in (1, enough, count))
        rows.append(
            {
                "workers": count,
                "efficiency, 1 bench": one.efficiency,
                "limit, 1 bench": one.limit,
                "bench busy": one.bench_share,
                "benches for 90 %": enough,
                "efficiency with them": many.efficiency,
                "with one each": free.efficiency,
                "driver busy": free.driver_share,
            }
        )
    return {"costs": asdict(costs), "trial": _mean(lives), "rows": rows}


def _mean(lives: Sequence[Life]) -> dict[str, float]:
    """The means of the recorded trials."""
    names = ("before", "train", "after", "quick", "full", "rungs")
    return {name: sum(getattr(life, name) for life in lives) / len(lives) for name in names}


def _search(folders: Sequence[Path], workers: Sequence[int], costs: Costs, seeds: int) -> dict[str, Any]:
    from search.scaling.parallel import parallel

    def on_seed(seed: int) -> None:
        typer.echo(f"seed {seed}", err=True)

    rows = parallel(read(folders), workers=workers, seeds=seeds, on_seed=on_seed)
    return {"rows": [asdict(row) for row in rows]}


def _controller(folders: Sequence[Path], workers: Sequence[int], costs: Costs, seeds: int) -> dict[str, Any]:
    from search.scaling.controller import Sleep, drive

    recorded = read(folders)
    sleep = Sleep(lives=tuple(read_lives(folders)), measured=tuple(measurements(folders)), shorter=SHORTER)
    rows: list[dict[str, Any]] = []
    for count in workers:
        rows.append(asdict(drive(recorded, sleep, workers=count, each=EACH)))
        typer.echo(json.dumps(rows[-1]), err=True)
    return {"rows": rows}


def _bench(folders: Sequence[Path], workers: Sequence[int], costs: Costs, seeds: int) -> dict[str, Any]:
    from search.scaling.bench import time_files

    rows = [row for folder in folders for row in time_files(folder, FILES)]
    return {"rows": [asdict(row) for row in rows]}


def _machine(folders: Sequence[Path], workers: Sequence[int], costs: Costs, seeds: int) -> dict[str, Any]:
    from search.scaling.machine import real

    return {"rows": [asdict(row) for row in real(workers)]}


_RUN: dict[str, Callable[[Sequence[Path], Sequence[int], Costs, int], dict[str, Any]]] = {
    "virtual": _virtual,
    "search": _search,
    "controller": _controller,
    "bench": _bench,
    "machine": _machine,
}


def table(found: dict[str, Any], part: str) -> str:
    """The rows of a part as plain text."""
    rows: list[dict[str, Any]] = found["rows"]
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([f"{part}:", *lines])


def _cell(value: float | int | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
