"""The live view in the terminal: its plots against plain arithmetic, and that it fits and says all."""

from __future__ import annotations

import io
import itertools
import statistics
import time
from typing import Any

import pytest
from rich.console import Console, Group
from rich.live import Live

from search.live.plot import BARS, LABEL, Series, Window, around, scatter, sparkline
from search.live.snapshot import Running, Snapshot
from search.live.totals import Totals
from search.live.view import FrontPlot, view
from tests.fakes import make_baseline, make_record
from tests.studies import RECORDS, ids, pruned, study

NOW = 1_000_000.0


def running(number: int, **changes: Any) -> Running:
    text = f"64px · recipe {number} with many words in it · " * 3
    known = {"step": "train", "done": 3, "total": 40, "node": "a-node-with-a-long-name", "since": NOW - 65}
    return Running.model_validate({"trunk": f"t{number}", "text": text, **known, **changes})


def snapshot(*workers: Running, **changes: Any) -> Snapshot:
    known = {
        "name": "cats",
        "pid": 1,
        "host": "here",
        "started": NOW - 754,
        "heartbeat": NOW,
        "stage": "searching detect-cpu",
        "stage_since": NOW - 700,
        "trials": 8,
        "trials_limit": 60,
        "seconds_left": 3_723.0,
        "running": workers,
    }
    return Snapshot.model_validate({**known, **changes})


@pytest.fixture
def totals() -> Totals:
    found = Totals(study(), started=0.0)
    for record in [make_baseline(), *RECORDS.values()]:
        found.add(record)
    return found


def shown(lines: list[Any], width: int, height: int) -> list[str]:
    """The lines as a console of this size prints them."""
    console = Console(file=io.StringIO(), record=True, width=width, height=height, force_terminal=True)
    console.print(Group(*lines))
    return console.export_text().rstrip("\n").split("\n")


def test_at_80_by_24_everything_is_there(totals: Totals) -> None:
    log = [f"line {number}" for number in range(50)]
    lines = shown(
        view(snapshot(running(1), running(2, step="shape", done=0, total=0)), totals, log, width=80, height=24), 80, 24
    )
    assert len(lines) == 24 and max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for words in (
        "cats",
        "searching detect-cpu",
        "12:34 · about 1:02:03 left",
        "trials 8/60, 2 under way",
        "5 complete  1 screened  1 stopped  1 failed",
        "front    3 records",
        "a-node-with-a",
        "train 3/40     1:05",
        "recipe 2 with",
        "mAP50-95",
        "latency, ratio",
        "line 49",
    ):
        assert words in text, f"{words} is missing in\n{text}"
    assert f"hypervolume {totals.hypervolume:.4f}" in text
    plotted = lines[3 : lines.index(next(line for line in lines if "trials 8/60" in line))]
    assert sum(line.count("◆") for line in plotted) == len(ids("small", "good", "better")) + 1  # and the legend
    assert text.index("line 48") < text.index("line 49")


@pytest.mark.parametrize(
    ("width", "height", "workers"), list(itertools.product((20, 40, 80, 211), (3, 8, 24, 70), (0, 1, 30)))
)
def test_it_never_is_larger_than_the_terminal(totals: Totals, width: int, height: int, workers: int) -> None:
    known = snapshot(*(running(number) for number in range(workers)))
    lines = view(known, totals, ["words " * 60] * 100, width=width, height=height)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    assert len(shown(lines, width, height)) == len(lines)  # no line is folded


def test_workers_for_whom_there_is_no_room_are_counted(totals: Totals) -> None:
    known = snapshot(*(running(number) for number in range(30)))
    text = "\n".join(shown(view(known, totals, [], width=80, height=24), 80, 24))
    seen = sum(f"recipe {number} with" in text for number in range(30))
    assert f"… and {30 - seen} more" in text
    assert 4 <= seen <= 8


def test_a_study_without_a_baseline_is_shown_too() -> None:
    text = "\n".join(shown(view(snapshot(seconds_left=None), Totals(study()), [], width=80, height=24), 80, 24))
    assert "0 complete" in text and "hypervolume 0.0000" in text
    assert "left" not in text and "◆" not in text


def test_points_stand_where_their_numbers_say() -> None:
    window = Window(x=(0.0, 1.0), y=(0.2, 0.8))
    points = [(0.0, 0.8), (1.0, 0.2), (0.5, 0.5), (0.25, 0.7), (2.0, 0.5), (0.5, 0.1)]
    lines = scatter([Series(mark="x", style="", points=points)], window, width=LABEL + 101, height=63, titles=("a", ""))
    assert all(line.cell_len == LABEL + 101 for line in lines[:-1])
    found = {
        (column, row)
        for row, line in enumerate(lines[:-2])
        for column, mark in enumerate(line.plain[LABEL:])
        if mark == "x"
    }
    assert {(50, 30), (25, 10), (100, 60)} <= found
    assert len(found) == 3  # two are outside, and the title hides the one in the corner
    labels = {row: line.plain[: LABEL - 2] for row, line in enumerate(lines[:-2]) if "┤" in line.plain}
    assert labels == {0: "0.800", 30: "0.500", 60: "0.200"}
    assert lines[-1].plain.split() == ["0.00", "a", "1.00"]


def test_later_marks_hide_earlier_ones() -> None:
    window = around([(0.5, 0.5)])
    series = [Series(mark=mark, style="", points=[(0.5, 0.5)]) for mark in "ab"]
    text = "".join(line.plain for line in scatter(series, window, width=40, height=9, titles=("", "")))
    assert text.count("b") == 1 and "a" not in text


def test_a_window_holds_all_its_points() -> None:
    points = [(0.3, 0.5), (1.0, 0.61), (0.2, 0.48)]
    window = around(points)
    assert all(window.place(own, 50, 20) is not None for own in points)
    assert around([(0.0, 0.0)]).place((0.0, 0.0), 5, 5) is not None


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline([0.0, 1.0, 2.0, 7.0], 10) == "▁▂▃█"
    assert sparkline([3.0, 3.0], 10) == BARS[0] * 2
    assert sparkline([], 10) == ""
    many = sparkline([float(value) for value in range(1000)], 8)
    assert many == BARS


def test_totals_are_those_of_the_records(totals: Totals) -> None:
    assert totals.states == {"complete": 5, "screened": 1, "stopped": 1, "failed": 1}
    assert [record.id for record in totals.front] == ids("small", "good", "better")
    assert totals.trials == len(RECORDS) == len(totals.moments)
    # Between accuracy 0 and the baseline's latency: the staircase under the front.
    assert totals.hypervolume == pytest.approx(0.3 * (0.4 - 0.2) + 0.595 * (0.7 - 0.4) + 0.61 * (1 - 0.7))


def test_leaves_of_a_trunk_are_one_trial() -> None:
    from spaces.recipe import Fp32

    found = Totals(study(), started=0.0)
    trunk = pruned(0.6)
    for record in (
        make_baseline(),
        make_record(trunk),
        make_record(trunk.model_copy(update={"quantize": Fp32()}), latency=0.4),
    ):
        found.add(record.model_copy(update={"at": 120.0}))
    assert (found.trials, len(found.moments)) == (1, 1)
    assert (found.moments[0].minutes, found.moments[0].epochs) == (2.0, 3)
    assert found.moments[0].hypervolume == found.hypervolume == pytest.approx(0.5 * 0.6)


def test_a_look_a_second_costs_less_than_a_percent_of_a_core(totals: Totals) -> None:
    for number in range(1, 2000):
        totals.add(make_record(pruned(0.5), accuracy=0.5, latency=number / 2000))
    known, plot = snapshot(*(running(number) for number in range(8))), FrontPlot()
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        seconds = list[float]()
        for _ in range(20):
            start = time.thread_time()
            lines = view(known, totals, ["a line of the log"] * 50, width=80, height=24, plot=plot)
            live.update(Group(*lines), refresh=True)
            seconds.append(time.thread_time() - start)
    print(f"{1000 * statistics.median(seconds):.1f} ms of CPU time a look")
    assert statistics.median(seconds) < 0.01
