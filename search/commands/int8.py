"""The int8 doctor: what is wrong with a quantized file, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from search.commands.app import DATA, Json, app


@app.command(epilog="Example: python -m search int8 model.onnx --float float.onnx --data data.yaml")
def int8(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The quantized file.")],
    float_file: Annotated[Path | None, typer.Option("--float", help="The float file that it was made from.")] = None,
    data: Annotated[Path | None, typer.Option(help=f"{DATA}, to look at accuracy.")] = None,
    as_json: Json = False,
) -> None:
    """Says in words what went wrong when a file was quantized, in which layers, and what to do."""
    from search.quantcheck.diagnose import diagnose

    found = diagnose(model, float_file=float_file, data=data)
    if as_json:
        typer.echo(json.dumps({"model": str(model)} | asdict(found), indent=2))
        return
    typer.echo(
        f"{model}: {found.integer_layers} of {found.layers} layers, {found.integer_macs_share:.1%} of the "
        f"multiplications, compute in integers here."
    )
    for finding in found.findings:
        typer.echo(f"\n{finding.code}: {finding.text}\n  What to do: {finding.advice}")
    if not found.findings:
        typer.echo("Nothing wrong found.")
    missing = [name for name, given in (("accuracy", float_file and data), ("latency", float_file)) if not given]
    if missing:
        typer.echo(f"\nNot looked at: {' and '.join(missing)}; give --float FLOAT.onnx and --data data.yaml.")
