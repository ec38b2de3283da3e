"""The machine a number was measured on, and whether it can run a search. Imports none of the packages it reports.

Facts are read where the system keeps them: ``/proc/cpuinfo``, control groups, package metadata, ``nvidia-smi``. What
a system does not tell is left empty rather than guessed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from search.formats import FORMATS, versions, why_not_here
from search.runtimes.table import RUNTIMES, runtime_packages

if TYPE_CHECKING:  # it imports numpy
    from search.runtimes.session import Runtime

PACKAGES = ("onnxruntime", "onnx", "torch", "ultralytics", "ray", "optuna", "torch-pruning")
PROJECT_FILE = Path(__file__).resolve().parents[2] / "pyproject.toml"
GIB = 2**30

# Flag in /proc/cpuinfo -> the name it is known by. 32-bit ARM writes "neon", 64-bit ARM "asimd".
_INSTRUCTION_SETS = {name: name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "neon", "i8mm")}
_INSTRUCTION_SETS |= {"asimd": "neon", "asimddp": "dotprod"}
_FAST_INT8 = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "dotprod")


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """A processor. ``signature`` is vendor, family and model: virtual machines hide these behind one name."""

    name: str
    signature: str
    instruction_sets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HostInfo:
    """A machine, in plain values; compare milliseconds only between measurements with the same ``id``.

    ``id`` is made from what latency depends on: processor, instruction sets, logical cores, GPUs with their driver,
    frequency governor and the version of the runtime that is asked about. ``usable_cores`` is what this process may run
    on, ``memory_gib`` what the machine or its container has, whichever is less. A ``governor`` other than "performance"
    lets the clock frequency wander. ``packages`` are those of a search, and every runtime that is installed.
    """

    id: str
    cpu: str
    cpu_signature: str
    logical_cores: int
    usable_cores: int
    memory_gib: float | None
    instruction_sets: tuple[str, ...]
    int8: str
    os: str
    python: str
    packages: dict[str, str]
    gpus: tuple[str, ...]
    governor: str | None

    def __post_init__(self) -> None:
        for name in ("instruction_sets", "gpus"):  # JSON has no tuples: a record read back gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing a search needs or profits from. ``advice`` is what to do about it, empty when it is ``ok``."""

    name: str
    ok: bool
    required: bool
    detail: str
    advice: str


def host_info(runtime: Runtime | None = None) -> HostInfo:
    """Describes this machine; takes milliseconds, or seconds where ``nvidia-smi`` is slow.

    Args:
        runtime: whose latency the ``id`` is about; ONNX Runtime's on the CPU, if not given.
    """
    cpu = parse_cpuinfo(_read("/proc/cpuinfo") or "")
    name = cpu.name or platform.processor() or platform.machine()
    reported = dict.fromkeys((*PACKAGES, *runtime_packages()))
    packages = {package: version for package in reported if (version := _version(package)) is not None}
    cores = os.cpu_count() or 1
    gpus, _ = list_gpus()
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    decisive = [name, cpu.signature, cpu.instruction_sets, cores, gpus, governor, _runtime_version(runtime)]
    return HostInfo(
        id=hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:10],
        cpu=name,
        cpu_signature=cpu.signature,
        logical_cores=cores,
        usable_cores=usable_cores(),
        memory_gib=_memory_gib(),
        instruction_sets=cpu.instruction_sets,
        int8=describe_int8(cpu.instruction_sets),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=packages,
        gpus=gpus,
        governor=governor,
    )


def doctor(project_file: Path = PROJECT_FILE) -> list[Check]:
    """Checks everything a search needs, and what it would profit from; version ranges come from the project file."""
    cpu = parse_cpuinfo(_read("/proc/cpuinfo") or "")
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


def parse_cpuinfo(text: str) -> Cpu:
    """Reads the first core of a text in the format of /proc/cpuinfo; empty where the text does not say.

    x86 writes "model name" and "flags"; ARM writes "Features", a core's implementer and part, and at times the
    board's name as "Model".
    """
    fields: dict[str, str] = {}
    for key, value in re.findall(r"^([^:\n]+?)[ \t]*:[ \t]*(.*)$", text, flags=re.MULTILINE):
        fields.setdefault(key, value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    parts = ("vendor_id", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU revision")
    return Cpu(
        name=fields.get("model name") or fields.get("Model") or fields.get("Hardware") or "",
        signature=" ".join(fields[part] for part in parts if part in fields),
        instruction_sets=tuple(dict.fromkeys(name for flag, name in _INSTRUCTION_SETS.items() if flag in flags)),
    )


def has_fast_int8(instruction_sets: Collection[str]) -> bool:
    """Says whether one instruction multiplies 8-bit integers and adds them up in 32 bits."""
    return any(name in instruction_sets for name in _FAST_INT8)


def describe_int8(instruction_sets: Collection[str]) -> str:
    """Says in words what int8 brings on these instruction sets (ONNX Runtime documentation, "Quantize ONNX models")."""
    if has_fast_int8(instruction_sets):
        return f"int8 is fast here: {', '.join(name for name in _FAST_INT8 if name in instruction_sets)}"
    if "avx2" in instruction_sets:
        return "int8 without VNNI: less speed to gain, and sums of 8-bit products may saturate"
    if "neon" in instruction_sets:
        return "int8 without dot-product instructions: smaller files, little speed"
    return "this system does not say which int8 instructions it has"


def usable_cores() -> int:
    """Counts the logical cores that this process may run on; fewer than the machine has when it is pinned."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    cores, memory, free = usable_cores(), _memory_gib(), shutil.disk_usage(Path.cwd()).free / GIB
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
        wanted, found = declared.get(name, SpecifierSet()), _version(name)
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


def _runtime_version(runtime: Runtime | None) -> str | None:
    """The version that latency depends on; with an environment of its own, the requirements that fix it."""
    if runtime is not None and runtime.environment:
        return " ".join(runtime.environment)
    name, provider = (runtime.name, runtime.provider) if runtime is not None else ("onnxruntime", "cpu")
    found = [_version(package) for package in RUNTIMES[name].providers[provider].packages]
    return next((version for version in found if version is not None), None)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def list_gpus() -> tuple[tuple[str, ...], str]:
    """Lists NVIDIA cards as "name, memory, driver", and says why there are none."""
    if shutil.which("nvidia-smi") is None:
        return (), "no NVIDIA driver (nvidia-smi not found)"
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi failed: {error}"
    if done.returncode:
        return (), f"nvidia-smi failed: {(done.stdout + done.stderr).strip()}"
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip()), "nvidia-smi lists no card"


def _memory_gib() -> float | None:
    """Returns the smaller of the machine's memory and the control group's limit, or None where neither is told."""
    known: list[int] = []
    if hasattr(os, "sysconf"):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = _read("/sys/fs/cgroup/memory.max")
    if limit is not None and limit.isdigit():  # "max" is no limit
        known.append(int(limit))
    return round(min(known) / GIB, 2) if known else None


def _read(path: str) -> str | None:
    """Returns the text of a system file, or None where the system has no such file or does not let it be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
