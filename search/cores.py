"""Cores for trials and cores for measurements, on a machine that has enough for both."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from search.measure.latency import last_cores
from search.target import Target

TOPOLOGY = Path("/sys/devices/system/cpu")
SPARE = 4  # cores for trials, at least; with fewer all cores are theirs


def training_cores(targets: Sequence[Target]) -> list[int]:
    """The cores of this machine that trials keep to, away from those that measurements for ``targets`` are pinned to.

    Away from the other hardware threads of these, too, where that leaves cores enough: work there slows a run down,
    also by the clock of CPU time. Empty, which is all, where there are fewer than four cores to spare, or where the
    system says nothing of cores.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    measuring = {core for target in targets for core in target.cores or last_cores(target.threads)}
    for taken in (measuring | _siblings(measuring), measuring):
        rest = [core for core in usable if core not in taken]
        if SPARE <= len(rest) < len(usable):
            return rest
    return []


def _siblings(cores: Iterable[int]) -> set[int]:
    """The logical cores that share a physical one with any of ``cores``, as far as the system tells (Linux)."""
    found = set[int]()
    for core in cores:
        file = TOPOLOGY / f"cpu{core}" / "topology" / "thread_siblings_list"  # such as 3,7 or 6-7
        for part in file.read_text(encoding="ascii").strip().split(",") if file.is_file() else ():
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found
