"""What parts bring, from hand-made records: differences by hand, rivals by brute force, rows that follow the picks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.ablation import why_no_smaller
from search.contributions import Contributions, brought, contributions, rivals, values_of
from search.record import Record
from search.report.contributions import contributions_text, row_line
from search.results import summary
from search.store import Store
from search.study import StudyConfig
from spaces.ablation import switched_off
from spaces.recipe import ChannelPrune, Finetune, Int8Static, Recipe
from tests.fakes import make_baseline, make_record

SIZE = 64
SCALES = {"n": [0.33, 0.25, 1024], "s": [0.33, 0.5, 1024], "m": [0.67, 0.75, 768]}
PICK = Recipe(image_size=SIZE, prune=ChannelPrune(ratio=0.5), finetune=Finetune(epochs=3), quantize=Int8Static())
OFF = switched_off(PICK, image_size=SIZE)


def tables(tmp_path: Path, records: list[Record], measured: list[Record], **study: Any) -> Contributions:
    config = StudyConfig.model_validate(
        {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": SIZE, **study}
    )
    store = Store(tmp_path)
    store.append([make_baseline(SIZE), *records])
    result = summary(config, store, tmp_path)
    return contributions(
        result, store.records, measured, image_size=SIZE, objectives=config.objectives, stock="none is smaller"
    )  # fmt: skip


def test_what_a_part_brings_is_the_pick_against_the_row(tmp_path: Path) -> None:
    pick = make_record(PICK, accuracy=0.6, latency=0.2, size=0.1)
    unpruned = make_record(OFF["pruning"], accuracy=0.65, latency=0.5, size=0.25)
    [picked] = tables(tmp_path, [pick], [unpruned]).picks
    assert picked.picks == ("recommended", "knee", "fastest", "smallest", "most-accurate")
    row = {row.name: row for row in picked.parts}["pruning"]
    assert row.brought is not None and row.values == values_of(unpruned)
    assert row.brought.accuracy == pytest.approx(-0.05)
    assert (row.brought.latency, row.brought.size) == pytest.approx((0.4, 0.4))
    # The extreme ratios of what both intervals hold: each is a percent up and down.
    assert row.brought.latency_ci == pytest.approx((0.2 * 0.99 / (0.5 * 1.01), 0.2 * 1.01 / (0.5 * 0.99)))


def test_latencies_of_different_hosts_are_not_compared() -> None:
    pick, other = (values_of(make_record(recipe)) for recipe in (PICK, OFF["pruning"]))
    found = brought(pick, other.model_copy(update={"host": "elsewhere", "accuracy": 0.1}))
    assert (found.latency, found.latency_ci) == (None, None)
    assert found.accuracy == pytest.approx(0.4)


def test_rows_follow_the_pick(tmp_path: Path) -> None:
    """What was measured for the pick before says nothing about the new one."""
    measured = [make_record(recipe) for recipe in OFF.values()]
    first = tables(tmp_path, [make_record(PICK, latency=0.2)], measured)
    assert {row.state for row in first.picks[0].parts} == {"complete"}
    better = PICK.model_copy(update={"prune": ChannelPrune(ratio=0.25)})
    found = tables(tmp_path, [make_record(better, accuracy=0.9, latency=0.1, size=0.01)], measured)
    [picked] = found.picks
    assert picked.record_id == better.id
    states = {row.name: row.state for row in picked.parts}
    # Without its pruning it is the same recipe as the old pick without its own.
    assert states.pop("pruning") == "complete" and set(states.values()) == {"missing"}


def test_only_a_complete_record_of_the_search_is_a_row(tmp_path: Path) -> None:
    screened = make_record(OFF["pruning"], accuracy=None, state="screened", reason="too slow")
    [picked] = tables(tmp_path, [make_record(PICK), screened], []).picks
    row = {row.name: row for row in picked.parts}["pruning"]
    assert (row.state, row.values) == ("missing", None)
    assert row.reason == "not trained: run `python -m search contributions DIR --pick recommended`"


def test_what_was_timed_again_counts_and_what_could_not_be_does_not(tmp_path: Path) -> None:
    pick, quantized = make_record(PICK, latency=0.2), make_record(OFF["quantization"], accuracy=0.4, latency=0.4)
    again = make_record(PICK, latency=0.25)
    broken = make_record(OFF["quantization"], state="failed", accuracy=None)
    [picked] = tables(tmp_path, [pick, quantized], [again, broken]).picks
    assert picked.values == values_of(again)
    assert {row.name: row.values for row in picked.parts}["quantization"] == values_of(quantized)


@pytest.mark.parametrize("objectives", [("accuracy", "latency"), ("accuracy", "latency", "size")])
def test_a_rival_is_beaten_by_picks_that_are_no_worse_anywhere(tmp_path: Path, objectives: tuple[str, ...]) -> None:
    fast = make_record(PICK, accuracy=0.5, latency=0.1, size=0.3)
    good = make_record(OFF["pruning"], accuracy=0.7, latency=0.4, size=0.4)
    values = [(0.5, 0.1, 0.3), (0.6, 0.4, 0.1), (0.4, 0.2, 0.2)]
    recipes = list(rivals(320).values())
    assert [recipe.image_size for recipe in recipes] == [224, 160, 320]
    for number, (accuracy, latency, size) in enumerate(values):
        folder = tmp_path / str(number)
        folder.mkdir()
        rival = make_record(rivals(SIZE)["int8 alone"], accuracy=accuracy, latency=latency, size=size)
        found = tables(folder, [fast, good], [rival], objectives=objectives)
        row = next(row for row in found.rivals if row.name == "int8 alone")
        columns = 3 if "size" in objectives else 2
        expected: set[str] = set()
        for pick in found.picks:
            own = (-pick.values.accuracy, pick.values.latency_ratio, pick.values.size_ratio)[:columns]
            other = (-accuracy, latency, size)[:columns]
            if own != other and all(own[axis] <= other[axis] for axis in range(columns)):
                expected |= set(pick.picks)
        assert set(row.beaten_by) == expected


@pytest.mark.parametrize(("size", "sides"), [(640, [480, 320]), (320, [224, 160]), (64, [32]), (32, [])])
def test_rivals_have_sides_that_a_head_takes(size: int, sides: list[int]) -> None:
    found = rivals(size)
    assert [recipe.image_size for recipe in found.values()] == [*sides, size]
    assert not any(recipe.trains for recipe in found.values())
    assert found["int8 alone"].quantize == Int8Static()


@pytest.mark.parametrize(
    ("file", "scale", "sentence"),
    [
        ("yolov8n.yaml", "n", "there is none: yolov8n is the smallest of its family"),
        ("yolov8n-cls.yaml", "n", "there is none: yolov8n-cls is the smallest of its family"),
        ("yolov8s.yaml", "s", "train yolov8n on the same data, then run"),
        ("yolov8m-cls.yaml", "m", "--smaller yolov8s-cls.pt`"),
        ("yolo11m.yaml", "m", "train yolo11s on the same data"),
        ("mine.yaml", "n", "the model is no stock model"),
        ("yolov8n.yaml", "", "the model is no stock model"),
    ],
)
def test_the_next_smaller_stock_model_is_named_or_why_there_is_none(file: str, scale: str, sentence: str) -> None:
    assert sentence in why_no_smaller({"yaml_file": file, "scale": scale, "scales": SCALES})


def test_a_model_that_says_nothing_of_its_architecture_is_no_stock_model() -> None:
    assert why_no_smaller({}) == "the model is no stock model"


def test_the_report_has_a_line_for_each_row_and_says_what_is_missing(tmp_path: Path) -> None:
    failed = make_record(OFF["quantization"], state="failed", accuracy=None, reason="broken | in\ntwo")
    done = make_record(OFF["all training"], accuracy=0.1, latency=0.5, size=0.25)
    found = tables(tmp_path, [make_record(PICK, accuracy=0.5, latency=0.5, size=0.25)], [failed, done])
    text = contributions_text(found)
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert lines["all training"].split(" | ")[1:10] == [
        "0.100", "×0.500", "0.495–0.505", "×0.250", "0", "+0.400", "×1.000", "0.980–1.020", "×1.000",
    ]  # fmt: skip
    assert " | failed: broken / in two | " in lines["quantization"]
    assert " | not trained | " in lines["pruning"]
    assert "Not trained: pruning, graph rewrites. `python -m search contributions DIR --pick recommended`" in text
    assert lines["the next smaller stock model"].endswith("| none is smaller |")
    columns = {line.count(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert len(columns) == 2  # one for each kind of table


def test_a_line_for_the_terminal() -> None:
    done = make_record(PICK, accuracy=0.512, latency=0.5, size=0.25)
    assert row_line("x", done) == "x: accuracy 0.512, latency ×0.500, size ×0.250"
    assert row_line("x", None) == "x: not trained"
    assert row_line("x", make_record(PICK, state="failed", reason="no\nmemory")) == "x: failed: no memory"
