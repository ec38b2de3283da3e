"""A model as a chain of smaller ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from search.commands.app import Devices, Json, app


@app.command(epilog="Example: python -m search split model.onnx --stages 2 --out stages --measure")
def split(
    model: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The file to cut.")],
    stages: Annotated[int, typer.Option(min=1, help="How many files to make of it.")] = 2,
    out: Annotated[Path | None, typer.Option(help="The folder to write, a new one (default: FILE-stages).")] = None,
    devices: Devices = "",
    measure: Annotated[bool, typer.Option("--measure", help="Time it beside other uses of the same cores.")] = False,
    as_json: Json = False,
) -> None:
    """Cuts an ONNX file into stages of about equal cost, that run as a pipeline on several devices or cores."""
    from search.split.cut import split_model
    from search.split.measure import compare

    folder = out or model.with_name(f"{model.stem}-stages")
    about = split_model(model, stages, folder, devices=devices.split(",") if devices else ())
    found = {"measured": compare(model, folder)} if measure else {}
    if as_json:
        typer.echo(json.dumps({"out": str(folder)} | about | found, indent=2))
    else:
        typer.echo("\n".join(_lines(folder, about)))
        typer.echo("\n".join(_measured(found["measured"])) if found else "", nl=bool(found))


def _lines(folder: Path, about: dict[str, Any]) -> list[str]:
    lines = [
        f"{folder}: {about['model']} in {len(about['stages'])} stages; answers differ by {about['difference']:.1g}"
    ]
    for number, stage in enumerate(about["stages"]):
        lines.append(f"  {stage['file']}  {stage['bytes'] / 1e6:.3f} MB, {stage['share']:.1%} of the time")
        if number < len(about["bytes"]):
            count = len(about["borders"][number + 1])
            lines.append(f"    hands on {about['bytes'][number] / 1e3:.0f} kB in {count} tensor{'s' * (count > 1)}")
    return lines


def _measured(found: dict[str, Any]) -> list[str]:
    names = {
        "pipeline": "pipeline, a process for each stage",
        "threads": "one process, threads on the same cores",
        "replicas": "a process with the whole model on each core",
        "single": "one process on one core",
    }
    lines = []
    for name, text in names.items():
        row = found[name]
        quiet = row["pictures_per_s_by_cpu"]
        busy = " + ".join(f"{value:.1f}" for value in row["cpu_ms"])
        allows = f" ms (allows {quiet:.1f}/s)" if quiet else " ms"
        rate = f"{row['pictures_per_s']:7.1f} pictures/s"
        lines.append(f"{text:44} {rate}, CPU {busy}{allows}, alone {row['alone_ms_p50']:.1f} ms")
    for name, (ratio, low, high) in found["ratios"].items():
        lines.append(f"pipeline over {name}: ×{ratio:.2f} ({low:.2f} to {high:.2f})")
    return lines
