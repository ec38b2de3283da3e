"""Cores for trials and cores for measurements."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.ray_study import CORES, keep_to_cores, training_cores
from search.target import Target

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("usable", "targets", "expected"),
    [
        (range(8), [Target()], [0, 1, 2, 3, 4, 5, 6]),
        (range(8), [Target(threads=4)], [0, 1, 2, 3]),
        (range(8), [Target(), Target(cores=(0, 1))], [2, 3, 4, 5, 6]),
        (range(2), [Target()], []),  # too few: all train, and measurements are in their way
        (range(4), [Target()], []),
        (range(2, 8), [Target(threads=2)], [2, 3, 4, 5]),
    ],
)
def test_trials_keep_away_from_measurements_where_there_is_room(
    usable: range, targets: list[Target], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(usable))
    assert training_cores(targets) == expected


def test_a_worker_keeps_to_the_cores_that_it_is_told() -> None:
    core = max(os.sched_getaffinity(0))
    code = "import os; from search.ray_study import keep_to_cores; keep_to_cores(); print(os.sched_getaffinity(0))"
    for told, expected in ((str(core), {core}), ("", os.sched_getaffinity(0))):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, CORES: told},
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert done.stdout.strip() == str(expected)
    keep_to_cores()  # nothing is told here, so nothing changes
    assert core in os.sched_getaffinity(0)
