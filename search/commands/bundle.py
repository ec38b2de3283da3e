"""Picks put to use elsewhere: make a bundle, and verify one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from search.commands.app import DATA, Json, MaxDrop, MaxLatency, MaxSize, StudyDir, app, limits


@app.command(epilog="Example: python -m search bundle results/my-model --pick recommended --for edge")
def bundle(
    folder: StudyDir,
    pick: Annotated[str, typer.Option(help="recommended, knee, fastest, smallest or most-accurate.")] = "recommended",
    place: Annotated[
        Literal["edge", "cloud"], typer.Option("--for", help="Where it will run; for the cloud with a service.")
    ] = "edge",
    out: Annotated[Path | None, typer.Option(help="The folder to write (default: DIR/bundles/<pick>-<for>).")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="The picture to check it with (default: one of the validation split).")
    ] = None,
    max_latency_ms: MaxLatency = None,
    max_size_mb: MaxSize = None,
    max_drop: MaxDrop = None,
    as_json: Json = False,
) -> None:
    """Makes a folder, and a .zip of it, that runs a pick without torch and ultralytics, on a device or as a service."""
    from search.bundle.make import make_bundle
    from search.bundle.manifest import read_manifest
    from search.commands.studies import known_pick

    kept = limits(max_latency_ms, max_size_mb, max_drop)
    made = make_bundle(folder, pick=known_pick(pick), place=place, limits=kept, out=out, sample=sample)
    manifest = read_manifest(made)
    if as_json:
        told = {"bundle": str(made), "zip": f"{made}.zip", "for": place, "record": manifest.record}
        typer.echo(json.dumps(told | {"sample": manifest.sample.source}, indent=2))
        return
    typer.echo(f"{made} and {made}.zip: record {manifest.record}; README.md there says how to run it")
    typer.echo(f"sample.png in it is {manifest.sample.source}; --sample IMAGE takes another")


@app.command(epilog="Example: python -m search verify results/my-model/bundles/recommended-edge --data data.yaml")
def verify(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")],
    data: Annotated[Path | None, typer.Option(help=f"{DATA}, to measure accuracy too.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    seconds: Annotated[float, typer.Option(min=0.1, help="Longest time to spend on latency.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Measures a bundle here and compares it with its card; exits 1 if something does not hold."""
    from search.bundle.verify import verify_bundle

    verdict = verify_bundle(folder, data=data, split=split, seconds=seconds)
    if as_json:
        typer.echo(json.dumps(asdict(verdict), indent=2))
    else:
        for check in verdict.checks:
            mark = {True: "ok", False: "WRONG", None: "-"}[check.holds]
            typer.echo(f"{mark:5} {check.name}: {check.text}")
        typer.echo(f"{folder} {'is as its card says' if verdict.holds else 'is not as its card says'}")
    if not verdict.holds:
        raise typer.Exit(1)
