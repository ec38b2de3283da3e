"""The machine a number was measured on. Imports none of the packages it reports.

Facts are read where the system keeps them: ``/proc/cpuinfo``, control groups, package metadata, ``nvidia-smi``. What
a system does not tell is left empty rather than guessed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from search.runtimes.table import RUNTIMES, runtime_packages

if TYPE_CHECKING:  # it imports numpy
    from search.runtimes.session import Runtime

PACKAGES = ("onnxruntime", "onnx", "torch", "ultralytics", "ray", "optuna", "torch-pruning")
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


def host_info(runtime: Runtime | None = None) -> HostInfo:
    """Describes this machine; takes milliseconds, or seconds where ``nvidia-smi`` is slow.

    Args:
        runtime: whose latency the ``id`` is about; ONNX Runtime's on the CPU, if not given.
    """
    cpu = this_cpu()
    name = cpu.name or platform.processor() or platform.machine()
    reported = dict.fromkeys((*PACKAGES, *runtime_packages()))
    packages = {package: version for package in reported if (version := version_of(package)) is not None}
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
        memory_gib=memory_gib(),
        instruction_sets=cpu.instruction_sets,
        int8=describe_int8(cpu.instruction_sets),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=packages,
        gpus=gpus,
        governor=governor,
    )


def this_cpu() -> Cpu:
    """The processor of this machine; empty where the system does not tell."""
    return parse_cpuinfo(_read("/proc/cpuinfo") or "")


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


def _runtime_version(runtime: Runtime | None) -> str | None:
    """The version that latency depends on; with an environment of its own, the requirements that fix it."""
    if runtime is not None and runtime.environment:
        return " ".join(runtime.environment)
    part = runtime.part if runtime is not None else RUNTIMES["onnxruntime"].providers["cpu"]
    found = [version_of(package) for package in part.packages]
    return next((version for version in found if version is not None), None)


def version_of(package: str) -> str | None:
    """Returns the version of an installed package, or None."""
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


def memory_gib() -> float | None:
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
