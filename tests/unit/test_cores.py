"""Cores for trials and cores for measurements."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from search import cores
from search.cores import training_cores
from search.target import Target


@pytest.fixture
def topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system would say which logical cores are one; it says nothing."""
    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path)
    return tmp_path


def say(topology: Path, siblings: dict[int, str]) -> None:
    for core, text in siblings.items():
        folder = topology / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{text}\n")


@pytest.mark.usefixtures("topology")
@pytest.mark.parametrize(
    ("usable", "targets", "expected"),
    [
        (range(8), [Target()], [0, 1, 2, 3, 4, 5, 6]),
        (range(8), [Target(threads=4)], [0, 1, 2, 3]),
        (range(8), [Target(), Target(cores=(0, 1))], [2, 3, 4, 5, 6]),
        (range(2), [Target()], []),  # too few: all train, and measurements are in their way
        (range(4), [Target()], []),
        (range(2, 8), [Target(threads=2)], [2, 3, 4, 5]),
        (range(8), [], []),
    ],
)
def test_trials_keep_away_from_measurements_where_there_is_room(
    usable: range, targets: list[Target], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(usable))
    assert training_cores(targets) == expected


@pytest.mark.parametrize(
    ("siblings", "target", "expected"),
    [
        ({7: "3,7"}, Target(), [0, 1, 2, 4, 5, 6]),
        ({7: "6-7"}, Target(), [0, 1, 2, 3, 4, 5]),
        ({6: "2,6", 7: "3,7"}, Target(threads=2), [0, 1, 4, 5]),
        ({7: "3,7,11,15"}, Target(), [0, 1, 2, 4, 5, 6]),  # some of them are not ours
        ({5: "1,5", 6: "2,6", 7: "3,7"}, Target(threads=3), [0, 1, 2, 3, 4]),  # else no four are left
        ({7: "7"}, Target(), [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_other_threads_of_a_measuring_core_are_left_idle_where_there_is_room(
    topology: Path, monkeypatch: pytest.MonkeyPatch, siblings: dict[int, str], target: Target, expected: list[int]
) -> None:
    """A training there would make a measurement longer, by the clock of the processor too."""
    say(topology, siblings)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert training_cores([target]) == expected
