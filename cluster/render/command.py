"""``python -m cluster render``: the command line of this package. What it needs is imported when it runs."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """What starts a cluster."""

    RAYCLUSTER = "raycluster"
    RAYJOB = "rayjob"
    RAY_UP = "ray-up"
    SLURM = "slurm"
    COMPOSE = "compose"


def render(
    kind: Annotated[Format, typer.Argument(metavar="FORMAT", help="raycluster, rayjob, ray-up, slurm or compose.")],
    spec: Annotated[
        Path | None, typer.Option(metavar="CLUSTER.yaml", help="The cluster [default: a small one].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the files there instead of printing them.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there with other content.")] = False,
) -> None:
    """Writes manifests that start a cluster, from one short description: KubeRay, Ray's launcher, Slurm, compose.

    Example: python -m cluster render rayjob --spec cluster.yaml --out deploy
    """
    from cluster.render.compose import Build, render_compose
    from cluster.render.formats import FORMATS
    from cluster.render.load import load_spec
    from cluster.render.write import write_files

    cluster = load_spec(spec)
    if out is None:
        typer.echo(_printed(FORMATS[kind](cluster)), nl=False)
        return
    if kind is Format.COMPOSE:
        # The repository is the working directory, as for every command of this project.
        build = Build(context=os.path.relpath(Path.cwd(), out), dockerfile=os.path.relpath(out / "Dockerfile"))
        files = render_compose(cluster, build)
    else:
        files = FORMATS[kind](cluster)
    for path in write_files(files, out, force=force):
        typer.echo(path)


def _printed(files: dict[str, str]) -> str:
    """One file as it is, so that it can be piped on; several below a line with the name of each."""
    if len(files) == 1:
        return next(iter(files.values()))
    return "\n".join(f"# ---- {name} ----\n{text}" for name, text in files.items())
