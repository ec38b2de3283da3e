"""The packages that a study needs: what to install on the cluster, and what is missing there."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(root: Path) -> list[Requirement]:
    """The dependencies in ``root/pyproject.toml``."""
    content = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return [Requirement(line) for line in content["project"]["dependencies"]]


def pinned(root: Path) -> list[str]:
    """For pip: every dependency but Ray, which must be the cluster's own, at the version in ``constraints.txt``."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, filter(_is_requirement, lines))}
    names = [requirement.name for requirement in required(root) if requirement.name != "ray"]
    return [name + pins[canonicalize_name(name)] for name in names]


def missing(root: Path) -> list[str]:
    """The dependencies that are not installed where this runs, or not in a version that is allowed."""
    return [str(requirement) for requirement in required(root) if not _satisfied(requirement)]


def _satisfied(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _is_requirement(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")
