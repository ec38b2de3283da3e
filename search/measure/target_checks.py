"""Which targets this machine can measure for, and what the others lack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

from search import formats
from search.doctor import Check
from search.environments import find_python
from search.errors import UserError
from search.formats import Obstacle, why_not_carried
from search.measure.host import list_gpus
from search.measure.worker import environment_of
from search.runtimes.table import Provider
from search.target import Target, load_target, target_names
from spaces.domain import Choice
from spaces.space import PartSpace, Space

ELSEWHERE = "choose another target, or start Ray on a machine that has it and offers the slot"


def why_not_here(target: Target) -> Obstacle | None:
    """Why this machine cannot run files for ``target``; None if it can.

    Packages of a target's own environment are no obstacle: they are installed when they are first needed. A GPU whose
    packages are there is tried, since they may lack a library or the GPU be too old, which takes some seconds.
    """
    gpus, problem = list_gpus()
    if target.device == "gpu" and not gpus:
        return Obstacle(f"{target.name} needs an NVIDIA GPU: {problem}", f'{ELSEWHERE} "{target.slot}"')
    part = target.as_runtime.part
    if target.environment:
        installed = find_python(environment_of(target.environment)) is not None
    elif not any(map(_installed, part.packages)):
        return Obstacle(f"{target.name} needs {' or '.join(part.packages)}", part.install)
    elif obstacle := _unloaded(target, part):
        return obstacle
    else:
        installed = True
    return _not_run(target, part) if installed and target.device == "gpu" else None


def lacking(targets: Sequence[Target]) -> str:
    """What this machine lacks to run files for one of ``targets``, and what to do; empty if nothing."""
    for target in targets:
        if obstacle := why_not_here(target) or formats.why_not_here(target.format, gpu=bool(list_gpus()[0])):
            return ": ".join(obstacle)
    return ""


def check_targets() -> list[Check]:
    """A line for each target that has a file here, as ``doctor`` prints them."""
    checks: list[Check] = []
    for name in target_names():
        target = load_target(name)
        obstacle = why_not_here(target)
        detail = obstacle.reason if obstacle else _how(target)
        advice = obstacle.advice if obstacle else ""
        checks.append(Check(name=f"target {name}", ok=not obstacle, required=False, detail=detail, advice=advice))
    return checks


def list_targets() -> list[dict[str, Any]]:
    """Every target with what it needs and whether it runs here; ``why_not`` and ``advice`` are empty if it does."""
    found: list[dict[str, Any]] = []
    for name in target_names():
        target, obstacle = load_target(name), why_not_here(load_target(name))
        content = target.model_dump(
            mode="json", include={"name", "about", "runtime", "provider", "device", "precisions", "environment"}
        )
        why = obstacle or Obstacle("", "")
        found.append(
            content | {"format": target.format, "here": obstacle is None, "why_not": why.reason, "advice": why.advice}
        )
    return found


def check_runs(targets: tuple[Target, ...], space: Space) -> None:
    """Refuses a study that cannot be measured, before any work.

    On a cluster (``RAY_ADDRESS``) other machines train and measure than the driver's, and say themselves what they
    lack.

    Raises:
        UserError: a target cannot run here or its files cannot be written, or the first of them runs nothing that the
            space can write.
    """
    for target in () if "RAY_ADDRESS" in os.environ else targets:
        if reason := lacking([target]):
            raise UserError(f"target {target.name}: {reason}")
    kinds = _kinds(space)
    main = targets[0]
    if not any(main.runs_kind(*kind) and not why_not_carried(main.format, kind[0]) for kind in kinds):
        asked = ", ".join(dict.fromkeys(kind for kind, _ in kinds))
        raise UserError(
            f"space {space.name}: no kind of quantize that it has ({asked}) runs on {main.name}, which runs "
            f"{', '.join(main.precisions) or 'all'} in {main.format} files; add one of these to the space"
        )


def _kinds(space: Space) -> list[tuple[str, int | None]]:
    """The kinds of ``quantize`` in a space, each with the numbers of bits that it may have, or None."""
    content = space.fields["quantize"]
    assert isinstance(content, tuple)
    return [(part.kind, bits) for part in content for bits in _bits(part)]


def _bits(part: PartSpace) -> tuple[int | None, ...]:
    domain = part.fields.get("bits")
    if isinstance(domain, Choice):
        return tuple(int(value) for value in domain.values)
    return (None,) if domain is None else tuple(range(int(domain.low), int(domain.high) + 1))


def _how(target: Target) -> str:
    if not target.environment:
        packages = filter(_installed, target.as_runtime.part.packages)
        return "runs here with " + ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    there = find_python(environment_of(target.environment)) is not None
    return f"runs here in an environment with {', '.join(target.environment)}" + (
        "" if there else ", which is made when it is first used"
    )


def _not_run(target: Target, part: Provider) -> Obstacle | None:
    from search.measure.smallest import why_not_run  # it imports onnx, and most machines have no GPU to ask about

    if why := why_not_run(target.as_runtime):
        return Obstacle(f"{target.name} does not run: {why}", part.install)
    return None


def _unloaded(target: Target, part: Provider) -> Obstacle | None:
    """A provider of ONNX Runtime may be missing from the build that is installed."""
    if not part.name:
        return None
    try:
        providers = list(import_module("onnxruntime").get_available_providers())
    except (ImportError, AttributeError) as error:  # a half-removed install imports as an empty package
        return Obstacle(f"{target.name} needs onnxruntime: {error}", part.install)
    if part.name in providers:
        return None
    return Obstacle(f"{target.name} needs {part.name}, and onnxruntime has {', '.join(providers)}", part.install)


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
