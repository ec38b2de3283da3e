"""Whether this machine can run a search: what is needed, what it would profit from, and what to do about either."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from search.formats import FORMATS, versions, why_not_here
from search.measure.host import (
    GIB,
    PACKAGES,
    describe_int8,
    has_fast_int8,
    list_gpus,
    memory_gib,
    this_cpu,
    usable_cores,
    version_of,
)

PROJECT_FILE = Path(__file__).resolve().parents[1] / "pyproject.toml"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing a search needs or profits from. ``advice`` is what to do about it, empty when it is ``ok``."""

    name: str
    ok: bool
    required: bool
    detail: str
    advice: str


def doctor(project_file: Path = PROJECT_FILE) -> list[Check]:
    """Checks everything a search needs, and what it would profit from; version ranges come from the project file."""
    cpu = this_cpu()
    return [
        *_check_machine(),
        _check_gpu(),
        _check(
            "int8",
            has_fast_int8(cpu.instruction_sets),
            describe_int8(cpu.instruction_sets),
            "compare int8 with float32 on the device that will run the model",
            required=False,
        ),
        *_check_packages(project_file),
        _check_providers(),
        *_check_formats(),
    ]


def declared_requirements(project_file: Path) -> dict[str, SpecifierSet]:
    """Reads the version range of every package the project file asks for on this system; {} without the file."""
    if not project_file.is_file():
        return {}
    lines = tomllib.loads(project_file.read_text(encoding="utf-8"))["project"]["dependencies"]
    wanted = [item for item in map(Requirement, lines) if item.marker is None or item.marker.evaluate()]
    return {canonicalize_name(item.name): item.specifier for item in wanted}


def _check(name: str, ok: bool, detail: str, advice: str, *, required: bool = True) -> Check:
    return Check(name=name, ok=ok, required=required, detail=detail, advice="" if ok else advice)


def _check_machine() -> list[Check]:
    cores, memory, free = usable_cores(), memory_gib(), shutil.disk_usage(Path.cwd()).free / GIB
    return [
        _check("python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer"),
        _check(
            "cores",
            cores >= 2,
            f"{cores} usable of {os.cpu_count()}",
            "with one core, training disturbs what is timed; run one trial at a time",
            required=False,
        ),
        _check(
            "memory",
            memory is None or memory >= 4,
            "not known" if memory is None else f"{memory:.1f} GiB",
            "a training run takes about 4 GiB; run one trial at a time, on a small model",
            required=False,
        ),
        _check("disk", free >= 2, f"{free:.1f} GiB free at {Path.cwd()}", "free at least 2 GiB or use another disk"),
    ]


def _check_gpu() -> Check:
    gpus, problem = list_gpus()
    advice = "training runs on the CPU; an NVIDIA card with its driver makes it many times faster"
    return _check("gpu", bool(gpus), "; ".join(gpus) or problem, advice, required=False)


def _check_packages(project_file: Path) -> list[Check]:
    """Checks every package the project file declares, and those reported on, for presence and range."""
    declared = declared_requirements(project_file)
    checks: list[Check] = []
    for name in sorted({*declared, *PACKAGES}):
        wanted, found = declared.get(name, SpecifierSet()), version_of(name)
        ok = found is not None and wanted.contains(found, prereleases=True)
        detail = f"{found or 'not installed'}{f' (needs {wanted})' if str(wanted) and not ok else ''}"
        checks.append(_check(name, ok, detail, f'pip install "{name}{wanted}"'))
    return checks


def _check_providers() -> Check:
    """Imports ONNX Runtime, the only package imported here: its providers are known to nobody else."""
    advice = "reinstall it: pip install --force-reinstall onnxruntime"
    try:
        providers = list(importlib.import_module("onnxruntime").get_available_providers())
    except (ImportError, AttributeError) as error:  # a half-removed install imports as an empty package
        return _check("onnxruntime providers", False, str(error), advice)
    return _check("onnxruntime providers", "CPUExecutionProvider" in providers, ", ".join(providers), advice)


def _check_formats() -> list[Check]:
    """Which formats ``apply --format`` can write here; a search needs only ONNX, whose packages are required above."""
    gpus, _ = list_gpus()
    checks: list[Check] = []
    for name in FORMATS:
        obstacle, found = why_not_here(name, gpu=bool(gpus)), versions(name)
        detail = obstacle.reason if obstacle else f"can be written{f' with {found}' if found else ''}"
        checks.append(
            _check(f"format {name}", not obstacle, detail, obstacle.advice if obstacle else "", required=False)
        )
    return checks
