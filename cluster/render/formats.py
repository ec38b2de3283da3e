"""Which function renders which format."""

from __future__ import annotations

from collections.abc import Callable

from cluster.render.command import Format
from cluster.render.compose import render_compose
from cluster.render.kubernetes import render_raycluster, render_rayjob
from cluster.render.launcher import render_ray_up
from cluster.render.slurm import render_slurm
from cluster.render.spec import ClusterSpec

FORMATS: dict[Format, Callable[[ClusterSpec], dict[str, str]]] = {
    Format.RAYCLUSTER: render_raycluster,
    Format.RAYJOB: render_rayjob,
    Format.RAY_UP: render_ray_up,
    Format.SLURM: render_slurm,
    Format.COMPOSE: render_compose,
}
