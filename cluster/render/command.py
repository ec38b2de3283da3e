"""``python -m cluster render``: the command line of this package, nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cluster.render.compose import Build, render_compose
from cluster.render.kubernetes import render_raycluster, render_rayjob
from cluster.render.launcher import render_ray_up
from cluster.render.load import load_spec
from cluster.render.slurm import render_slurm
from cluster.render.spec import ClusterSpec
from cluster.render.write import write_files


class Format(StrEnum):
    """What starts a cluster."""

    RAYCLUSTER = "raycluster"
    RAYJOB = "rayjob"
    RAY_UP = "ray-up"
    SLURM = "slurm"
    COMPOSE = "compose"


FORMATS: dict[Format, Callable[[ClusterSpec], dict[str, str]]] = {
    Format.RAYCLUSTER: render_raycluster,
    Format.RAYJOB: render_rayjob,
    Format.RAY_UP: render_ray_up,
    Format.SLURM: render_slurm,
    Format.COMPOSE: render_compose,
}


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
    """Writes ready manifests from one small description of a cluster: KubeRay, Ray's launcher, Slurm, compose."""
    cluster = load_spec(spec)
    if kind is Format.COMPOSE and out is not None:
        files = render_compose(cluster, _build(out))
    else:
        files = FORMATS[kind](cluster)
    if out is None:
        typer.echo(_printed(files), nl=False)
        return
    for path in write_files(files, out, force=force):
        typer.echo(path)


def _build(out: Path) -> Build:
    """The repository is the working directory, as for every command of this project."""
    return Build(context=os.path.relpath(Path.cwd(), out), dockerfile=os.path.relpath(out / "Dockerfile"))


def _printed(files: dict[str, str]) -> str:
    """One file as it is, so that it can be piped on; several below a line with the name of each."""
    if len(files) == 1:
        return next(iter(files.values()))
    return "\n".join(f"# ---- {name} ----\n{text}" for name, text in files.items())
