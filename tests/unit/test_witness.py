"""The witness: which walks it takes for calm, and that a real one notices others at work in the memory."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from search.measure.witness import DAY, ENOUGH, REST, ROOM, STEPS, Rest, Walk, Witness

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What processes share, without what those of this machine know."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def kept(folder: Path) -> list[Path]:
    return list(folder.rglob("rest-*"))


def calm(walk: Callable[[], float], cores: tuple[int, ...] | None = (3,), looks: int = ENOUGH) -> bool:
    """Whether a process that knows what others saw, and then walks so, takes these walks for calm ones."""
    witness = Witness(walk, Rest(cores))
    return bool(witness.calm([witness.look() for _ in range(looks)]).all())


def test_a_walk_is_calm_that_is_about_as_fast_as_the_fastest() -> None:
    walks = cycle([1.0, 1.05, 1.3, 1.0, 1.2])
    witness = Witness(lambda: next(walks))
    looks = [witness.look() for _ in range(100)]
    assert witness.calm(looks).tolist() == [look < 1 + ROOM for look in looks]
    assert np.quantile(looks, REST) == 1.0


def test_rest_is_what_was_seen_before_too() -> None:
    """A disturbance that lasts through a whole measurement."""
    now = 1.0
    witness = Witness(lambda: now)
    for _ in range(50):
        witness.look()
    now = 1.2
    assert not any(witness.calm([witness.look() for _ in range(200)]))


def test_one_lucky_walk_is_not_rest() -> None:
    walks = iter([0.5] + [1.0] * 99)
    witness = Witness(lambda: next(walks))
    assert witness.calm([witness.look() for _ in range(100)]).all()


def test_a_real_walk_takes_some_milliseconds_of_cpu_time() -> None:
    walk = Walk()
    times = [walk() for _ in range(10)]
    assert 1e-6 * STEPS < min(times) < 1e-4 * STEPS  # of a nanosecond to a tenth of a microsecond for each step


def test_a_process_that_is_started_beside_other_work_knows_rest_from_others(folder: Path) -> None:
    assert calm(lambda: 1.2)  # nobody knows better
    assert calm(lambda: 1.0)
    assert not calm(lambda: 1.2)
    assert not calm(lambda: 1.2, looks=1)
    assert calm(lambda: 1.05)
    assert Rest((3,)).read() == 1.0


def test_what_others_know_is_of_the_same_cores_and_not_for_ever(folder: Path) -> None:
    assert calm(lambda: 1.0)
    assert calm(lambda: 1.2, cores=(2,))
    assert calm(lambda: 1.2, cores=None)
    [file] = [file for file in kept(folder) if file.read_text() == "1.0"]
    before = time.time() - DAY - 60
    os.utime(file, (before, before))
    assert calm(lambda: 1.2)
    assert Rest((3,)).read() == 1.2


def test_few_walks_or_a_lucky_one_are_not_for_others(folder: Path) -> None:
    assert calm(lambda: 1.0, looks=ENOUGH - 1)
    assert not kept(folder)
    walks = iter([0.5] + [1.0] * ENOUGH)
    witness = Witness(lambda: next(walks), Rest((3,)))
    witness.calm([witness.look() for _ in range(ENOUGH)])
    assert Rest((3,)).read() == 1.0


@pytest.mark.parametrize("content", [None, "", "half a numb"])
def test_a_file_that_cannot_be_used_costs_nothing(folder: Path, content: str | None) -> None:
    assert calm(lambda: 1.0)
    [file] = kept(folder)
    if content is None:
        file.unlink()
        file.mkdir()  # it can be neither read nor replaced
    else:
        file.write_text(content)
    assert Rest((3,)).read() == math.inf
    assert calm(lambda: 1.2)


def test_processes_that_write_at_once_leave_one_whole_number(folder: Path) -> None:
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from search.measure.witness import Rest\n"
        "for step in range(300): Rest((3,)).offer(1300.0 - step)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT) for _ in range(2)]
    seen = [math.inf]
    while any(writer.poll() is None for writer in writers):
        seen.append(Rest((3,)).read())
    assert [writer.returncode for writer in writers] == [0, 0]
    assert Rest((3,)).read() == 1001.0
    assert all(found in range(1001, 1301) for found in seen if found < math.inf)
    assert math.inf not in seen[next((i for i, found in enumerate(seen) if found < math.inf), len(seen)) :]
    assert [file.suffix for file in kept(folder)] == [""]
