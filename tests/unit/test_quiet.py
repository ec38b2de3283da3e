"""Turns on one machine, with real processes: who measures has it alone, and training goes on afterwards."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.measure import quiet
from search.measure.quiet import measuring, working

ROOT = Path(__file__).resolve().parents[2]
# Writes when each piece of work began and ended, by the clock of the machine; a piece takes 50 ms.
WORKER = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[1]
from search.measure.quiet import working
with working() as pause:
    for piece in range(10_000):
        pause()
        with working() as inner:
            inner()
        start = time.monotonic()
        time.sleep(0.05)
        print(piece, start, time.monotonic(), flush=True)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Locks of their own: other tests measure on this machine too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process
        process.kill()


def next_piece(worker: subprocess.Popen[str]) -> tuple[int, float, float]:
    """Its number, and when it began and ended."""
    assert worker.stdout is not None
    number, start, end = worker.stdout.readline().split()
    return int(number), float(start), float(end)


def test_work_pauses_while_a_measurement_wants_quiet_and_goes_on(worker: subprocess.Popen[str]) -> None:
    pieces = [next_piece(worker)]
    with measuring(quiet=True) as still:
        assert still
        began = time.monotonic()
        time.sleep(0.5)  # ten pieces would be done meanwhile
        ended = time.monotonic()
    while pieces[-1][1] < ended:
        pieces.append(next_piece(worker))
    assert [number for number, _, _ in pieces] == list(range(len(pieces)))
    assert not [piece for piece in pieces if piece[2] > began and piece[1] < ended]
    assert pieces[-1][1] < ended + 5


def test_work_that_does_not_pause_is_waited_for_but_not_for_ever() -> None:
    with working():
        start = time.monotonic()
        with measuring(quiet=True, patience=0.3) as still:
            assert not still
        assert 0.3 <= time.monotonic() - start < 3


def test_a_measurement_that_needs_no_quiet_waits_for_nobody(worker: subprocess.Popen[str]) -> None:
    next_piece(worker)
    with measuring(quiet=False) as still:
        assert not still
        began = time.monotonic()
        while next_piece(worker)[1] < began:  # it goes on
            pass


def test_a_worker_that_died_is_not_waited_for(worker: subprocess.Popen[str]) -> None:
    next_piece(worker)
    worker.kill()
    worker.wait()
    with measuring(quiet=True, patience=5) as still:
        assert still


def test_one_measures_at_a_time(folder: Path) -> None:
    code = (
        "import sys, tempfile, time; tempfile.tempdir = sys.argv[1]\n"
        "from search.measure.quiet import measuring\n"
        "with measuring(quiet=False):\n    print(time.monotonic(), flush=True)"
    )
    with measuring(quiet=False):
        other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        time.sleep(1.5)
        end = time.monotonic()
    assert float(other.communicate()[0]) >= end
    assert quiet.PATIENCE > 1
