"""What ``python -m search simulate`` does: compares, prints a table or JSON, and writes a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from search.simulate.compare import SeedResult, SetName, compare, summary
from search.simulate.plot import plot
from search.simulate.recorded import read
from search.simulate.scale import Times, measure

RESULTS = Path(__file__).resolve().parent.parent.parent / "results"
# What the benchmark is made from by default: real studies of blood cells, and trainings that were watched.
RECORDS = tuple(RESULTS / name for name in ("bccd-first", "bccd-gambles", "bccd-second", "bccd-curves"))


def run(
    *, seeds: int, workers: int, engines: SetName, records: Sequence[Path], picture: Path | None, as_json: bool
) -> None:
    """Compares the engines and shows the result.

    Raises:
        UserError: the records cannot make a benchmark.
    """
    recorded = read(records or RECORDS)

    def on_seed(result: SeedResult) -> None:
        typer.echo(f"seed {result.seed}: {_line(result)}", err=True)

    results = compare(recorded, seeds=seeds, workers=workers, engines=engines, on_seed=on_seed)
    found = summary(results, recorded, workers=workers)
    if picture is not None:
        plot(results, picture)
    typer.echo(json.dumps(found, indent=2) if as_json else table(found))


def run_scale(*, finished: int, workers: int, calls: int, size: bool, records: Sequence[Path], as_json: bool) -> None:
    """Times a large study and shows the result.

    Raises:
        UserError: the records cannot make a benchmark.
    """
    found = measure(read(records or RECORDS), finished=finished, workers=workers, calls=calls, size=size)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    typer.echo(
        f"{found.finished} finished trials ({found.records} records), {found.in_flight} in flight; milliseconds:\n"
        f"{'':12} {'p50':>8} {'p99':>8} {'max':>8}"
    )
    for name in ("suggestion", "decision", "end"):
        times: Times = getattr(found, name)
        typer.echo(f"{name:12} {times.p50:8.1f} {times.p99:8.1f} {times.max:8.1f}")
    typer.echo(f"learning all records anew {found.resume_seconds:.1f} s, memory {found.memory_mb:.0f} MB")


def table(found: dict[str, Any]) -> str:
    """The comparison as plain text, a line an engine."""
    lines = [
        f"{len(found['seeds'])} seeds, {found['workers']} workers; epochs until what {found['trials']} full-length "
        "trials of random search and of Optuna end with is reached, as a share of theirs (median, 95 % interval)",
        f"{'engine':20} {'vs random':>22} {'vs optuna':>22} {'not reached':>12}",
    ]
    for name, engine in found["engines"].items():
        cells = [engine[f"epochs_ratio_vs_{target}"] for target in ("random", "optuna")]
        texts = [f"{c['median']:.2f} ({c['interval'][0]:.2f}-{c['interval'][1]:.2f})" for c in cells]
        lines.append(f"{name:20} {texts[0]:>22} {texts[1]:>22} {cells[0]['censored']:>5}, {cells[1]['censored']:>5}")
    errors = found["surrogate"]
    lines.append(
        f"Benchmark from {errors['trunks']} trunks ({errors['trained']} trained) and {errors['curves']} curves. Error "
        f"on left-out trunks: accuracy {errors['accuracy']:.3f} of {errors['accuracy_deviation']:.3f}, log latency "
        f"{errors['latency']:.2f} of {errors['latency_deviation']:.2f}, log size {errors['size']:.2f} of "
        f"{errors['size_deviation']:.2f} (standard deviations)."
    )
    return "\n".join(lines)


def _line(result: SeedResult) -> str:
    shown = {name: outcome.epochs_vs_random for name, outcome in result.outcomes.items()}
    return ", ".join(f"{name} {'-' if ratio is None else f'{ratio:.2f}'}" for name, ratio in shown.items())
