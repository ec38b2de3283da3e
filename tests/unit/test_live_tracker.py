"""What the driver says of itself: ``live.json``, the lines of the display, and what is left of the budget."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from pathlib import Path

import pytest

from search.live.snapshot import STALE, Activities, Activity, Snapshot, clock, read_snapshot
from search.live.totals import Totals
from search.live.tracker import Tracker
from search.store import Store
from tests.fakes import make_baseline, make_record
from tests.studies import pruned, study


class Heard:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.lines, self.snapshots = list[str](), list[Snapshot]()
        self.opened = self.closed = 0

    def open(self, folder: Path) -> None:
        self.opened += 1

    def event(self, text: str) -> None:
        self.lines.append(text)

    def beat(self, snapshot: Snapshot, totals: Totals) -> None:
        self.snapshots.append(snapshot)

    def close(self) -> None:
        self.closed += 1


def wait_for(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_it_says_what_runs_and_how_it_ended(tmp_path: Path) -> None:
    display, store, told = Heard(), Store(tmp_path), dict[str, tuple[Activity, float]]()
    store.append([make_baseline()])
    one, two = pruned(0.6), pruned(0.3)
    with Tracker(study(budget={"trials": 4}), tmp_path, store, display) as tracker:
        tracker.stage("searching")
        with tracker.listening(lambda: told):
            store.start(one)
            tracker.trial_started(one)
            tracker.trial_started(two)
            told[one.trunk_id] = (Activity(step="train", done=2, total=3, node="n1"), 5.0)
            told["somebody else"] = (Activity(step="train"), 5.0)
            wait_for(
                lambda: any(own.done == 2 for known in [read_snapshot(tmp_path)] if known for own in known.running)
            )
            known = read_snapshot(tmp_path)
            assert known is not None and known.alive(time.time())
            assert (known.pid, known.host, known.stage) == (os.getpid(), socket.gethostname(), "searching")
            first, second = known.running
            assert (first.trunk, first.step, first.total, first.node) == (one.trunk_id, "train", 3, "n1")
            assert first.text == "64px · prune 0.6 l2/layer · 3 epochs"
            assert known.heartbeat - first.since == pytest.approx(5.0, abs=0.5)
            assert (second.trunk, second.step) == (two.trunk_id, "starting")
            records = [make_record(one, accuracy=0.5, latency=0.3)]
            store.append(records)
            tracker.trial_ended(one, records, "")
            wait_for(lambda: display.snapshots[-1].trials == 1)
            assert [own.trunk for own in display.snapshots[-1].running] == [two.trunk_id]
            assert display.snapshots[-1].seconds_left is not None
    assert display.lines[0].endswith("  searching")
    assert (
        "trial 1/4  64px · prune 0.6 l2/layer · 3 epochs  int8 mAP50-95 0.500 at ×0.30  about 0:0" in display.lines[1]
    )
    ended = read_snapshot(tmp_path)
    assert ended is not None
    assert (ended.state, ended.running, ended.seconds_left, ended.trials) == ("ended", (), None, 1)
    assert ended.log == tuple(display.lines)
    assert not ended.alive(time.time())
    assert (display.opened, display.closed) == (1, 1)


@pytest.mark.parametrize(("error", "state"), [(ValueError("no\nway"), "failed"), (KeyboardInterrupt(), "stopped")])
def test_an_end_by_an_error_is_said_and_the_display_closed(tmp_path: Path, error: BaseException, state: str) -> None:
    display = Heard()
    with pytest.raises(type(error)), Tracker(study(), tmp_path, Store(tmp_path), display):
        raise error
    known = read_snapshot(tmp_path)
    assert known is not None
    assert (known.state, known.reason, display.closed) == (state, "no way" if state == "failed" else "", 1)


def test_a_folder_that_is_gone_does_not_hide_why_the_study_ended(tmp_path: Path) -> None:
    folder, display = tmp_path / "study", Heard()
    folder.mkdir()

    def work() -> None:
        with Tracker(study(), folder, Store(folder), display):
            shutil.rmtree(folder)
            wait_for(lambda: len(display.snapshots) >= 2)  # it goes on to be shown
            raise ValueError("the disk")

    with pytest.raises(ValueError, match="the disk"):
        work()
    assert display.closed == 1


def test_the_board_is_not_read_once_the_search_is_over(tmp_path: Path) -> None:
    asked = list[float]()

    def read() -> Activities:
        asked.append(time.monotonic())
        return {}

    with Tracker(study(), tmp_path, Store(tmp_path), Heard()) as tracker:
        with tracker.listening(read):
            tracker.trial_started(pruned(0.5))
            wait_for(lambda: asked)
        over = time.monotonic()
        tracker.trial_started(pruned(0.4))
        time.sleep(1.3)
        assert max(asked) <= over


def test_a_slow_board_holds_nobody_up(tmp_path: Path) -> None:
    with Tracker(study(), tmp_path, Store(tmp_path), Heard()) as tracker:
        begun = list[int]()

        def read() -> Activities:
            begun.append(1)
            time.sleep(1.5)
            return {}

        with tracker.listening(read):
            tracker.trial_started(pruned(0.5))
            wait_for(lambda: begun)
            start = time.monotonic()
            tracker.trial_ended(pruned(0.5), [], "it broke")
            assert time.monotonic() - start < 0.5


def test_a_resumed_study_reckons_with_its_own_pace(tmp_path: Path) -> None:
    store, display = Store(tmp_path), Heard()
    store.append([make_baseline(), *(make_record(pruned(0.1 * number)) for number in range(1, 5))])
    with Tracker(study(budget={"trials": 1005}), tmp_path, store, display) as tracker:
        start = time.monotonic()
        tracker.stage("searching")
        time.sleep(0.3)
        records = [make_record(pruned(0.5))]
        store.append(records)
        tracker.trial_ended(pruned(0.5), records, "")
        most = time.monotonic() - start
    told = re.search(r"trial 5/1005 .* about (\d+):(\d\d) left", display.lines[-1])
    assert told is not None
    assert 299 <= 60 * int(told[1]) + int(told[2]) <= 1000 * most + 1  # a thousand more, at the pace of this one


def test_a_heartbeat_that_stopped_is_no_running_study(tmp_path: Path) -> None:
    with Tracker(study(), tmp_path, Store(tmp_path), Heard()):
        wait_for(lambda: read_snapshot(tmp_path) is not None)
        known = read_snapshot(tmp_path)
    assert known is not None and known.alive(known.heartbeat + STALE)
    assert not known.alive(known.heartbeat + STALE + 0.1)


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path) is None
    (tmp_path / "live.json").write_text("{")
    assert read_snapshot(tmp_path) is None


def test_a_clock_has_hours_where_there_are_any() -> None:
    assert [clock(seconds) for seconds in (0, 59.9, 61, 3600, 36_061)] == [
        "0:00",
        "0:59",
        "1:01",
        "1:00:00",
        "10:01:01",
    ]
