"""What parts bring, from hand-made records: differences by hand, rivals by brute force, rows that follow the picks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.ablation import why_no_smaller
from search.contributions import Contributions, Row, Timing, contributions, rivals, timed, values_of
from search.measure.latency import Latency
from search.record import Record
from search.report.contributions import contributions_text, row_line
from search.results import summary
from search.store import Store
from search.study import StudyConfig
from spaces.ablation import switched_off
from spaces.recipe import ChannelPrune, Finetune, Int8Static, Recipe
from tests.fakes import make_baseline, make_record, on_images

SIZE = 64
SCALES = {"n": [0.33, 0.25, 1024], "s": [0.33, 0.5, 1024], "m": [0.67, 0.75, 768]}
PICK = Recipe(image_size=SIZE, prune=ChannelPrune(ratio=0.5), finetune=Finetune(epochs=3), quantize=Int8Static())
OFF = switched_off(PICK, image_size=SIZE)


def tables(
    tmp_path: Path, records: list[Record], measured: list[Record], timings: list[Timing] | None = None, **study: Any
) -> Contributions:
    config = StudyConfig.model_validate(
        {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": SIZE, **study}
    )
    store = Store(tmp_path)
    store.append([make_baseline(SIZE), *records])
    result = summary(config, store, tmp_path)
    return contributions(
        result,
        store.records,
        measured,
        timings or [],
        image_size=SIZE,
        objectives=config.objectives,
        stock="none is smaller",
    )


def ratio(value: float, **more: Any) -> Latency:
    """A latency that is known to a percent up and down."""
    made = make_record(PICK, latency=value).measurement
    assert made is not None
    return replace(made.latency, **{"host": "host", **more})


def timing(row: float, pick: float, part: str = "pruning", **more: Any) -> Timing:
    return Timing(row=OFF[part].id, latency=ratio(row, **more), pick=PICK.id, pick_latency=ratio(pick))


def without(part: str, found: Contributions) -> Row:
    [picked] = found.picks
    return next(row for row in picked.parts if row.name == part)


def test_what_a_part_brings_is_the_pick_against_the_row(tmp_path: Path) -> None:
    pick = make_record(PICK, accuracy=0.6, latency=0.2, size=0.1)
    unpruned = make_record(OFF["pruning"], accuracy=0.65, latency=0.5, size=0.25)
    found = tables(tmp_path, [pick], [unpruned], [timing(0.5, 0.2)])
    assert found.picks[0].picks == ("recommended", "knee", "fastest", "smallest", "most-accurate")
    row = without("pruning", found)
    assert row.brought is not None and row.values == values_of(unpruned)
    assert row.brought.accuracy == pytest.approx(-0.05)
    assert (row.brought.latency, row.brought.size) == pytest.approx((0.4, 0.4))
    # The extreme ratios of what both intervals hold: each is a percent up and down.
    assert row.brought.latency_ci == pytest.approx((0.2 * 0.99 / (0.5 * 1.01), 0.2 * 1.01 / (0.5 * 0.99)))


def test_what_slows_pick_and_row_alike_moves_no_factor(tmp_path: Path) -> None:
    """A row that was timed hours after another is set against the pick of its own hour."""
    measured = [make_record(OFF[part]) for part in ("pruning", "all training")]
    timings = [
        timing(0.5, 0.2),
        timing(0.26, 0.26, "all training"),
        timing(0.75, 0.3),
        timing(0.24, 0.24, "all training"),
    ]
    found = tables(tmp_path, [make_record(PICK)], measured, timings)
    for part, factor in (("pruning", 0.4), ("all training", 1.0)):
        gain = without(part, found).brought
        assert gain is not None and gain.latency == pytest.approx(factor) and gain.latency_ci is not None
        low, high = gain.latency_ci
        # Two timings that agree are known by the root of two better than one.
        assert math.log(high / low) == pytest.approx(2 * math.log(1.01 / 0.99) / math.sqrt(2))
    values = found.picks[0].values
    assert values.latency_ratio == pytest.approx((0.2 * 0.26 * 0.3 * 0.24) ** 0.25, rel=1e-3)
    assert values.latency_ratio_ci[1] / values.latency_ratio_ci[0] > 1.1  # the four do not agree at all


def test_timings_that_disagree_widen_the_factor(tmp_path: Path) -> None:
    gain = without(
        "all training",
        tables(
            tmp_path,
            [make_record(PICK)],
            [make_record(OFF["all training"])],
            [timing(0.2, 0.19, "all training"), timing(0.2, 0.206, "all training")],
        ),
    ).brought
    assert gain is not None and gain.latency_ci is not None
    assert gain.latency_ci[0] < 1 < gain.latency_ci[1]


def test_without_timings_of_both_no_latency_is_brought(tmp_path: Path) -> None:
    """Two latencies that happen to be known, on another day or another host, make no factor."""
    elsewhere = timing(0.5, 0.2, host="elsewhere")
    alone = elsewhere.model_copy(update={"pick_latency": None})
    for number, timings in enumerate(([], [elsewhere], [alone])):
        folder = tmp_path / str(number)
        folder.mkdir()
        gain = without("pruning", tables(folder, [make_record(PICK)], [make_record(OFF["pruning"])], timings)).brought
        assert gain is not None and (gain.latency, gain.latency_ci) == (None, None)
        assert gain.accuracy == pytest.approx(0.0)
    assert not elsewhere.calm and not alone.calm and timing(0.5, 0.2).calm
    assert alone.model_copy(update={"pick": ""}).calm  # a rival's


def test_a_latency_is_of_one_host() -> None:
    record = make_record(OFF["pruning"])
    there, here = timing(0.9, 0.2, host="elsewhere"), timing(0.5, 0.2)
    assert values_of(timed(record, [there, here])).latency_ratio == 0.5
    moved = values_of(timed(record, [here, there]))
    assert (moved.latency_ratio, moved.host) == (0.9, "elsewhere")


def test_disturbed_timings_count_where_there_are_no_others_and_are_told(tmp_path: Path) -> None:
    measured = [make_record(OFF[part]) for part in ("pruning", "all training")]
    doubt = "the baseline became 9% slower"
    timings = [
        timing(0.8, 0.2, disturbed=True),
        timing(0.5, 0.2),
        timing(0.25, 0.2, "all training", disturbed=True, doubts=(doubt,)),
    ]
    found = tables(tmp_path, [make_record(PICK)], measured, timings)
    calm, other = without("pruning", found), without("all training", found)
    assert calm.brought is not None and calm.brought.latency == pytest.approx(0.4) and calm.brought.doubts == ()
    assert other.brought is not None and other.brought.latency == pytest.approx(0.8)
    assert other.values is not None and other.brought.doubts == other.values.doubts == (doubt,)
    lines = [line for line in contributions_text(found).splitlines() if line.startswith("- ")]
    assert lines == [f"- To be doubted: all training: {doubt}."]


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


def test_what_the_search_completed_is_known_by_it(tmp_path: Path) -> None:
    quantized = make_record(OFF["quantization"], accuracy=0.4, latency=0.4)
    before = make_record(OFF["quantization"], accuracy=0.3, latency=0.9)
    row = without("quantization", tables(tmp_path, [make_record(PICK, latency=0.2), quantized], [before]))
    assert row.values == values_of(quantized)


@pytest.mark.parametrize("objectives", [("accuracy", "latency"), ("accuracy", "latency", "size")])
def test_a_rival_is_beaten_by_picks_that_are_surely_no_worse(tmp_path: Path, objectives: tuple[str, ...]) -> None:
    fast = make_record(PICK, accuracy=0.5, latency=0.1, size=0.3)
    good = make_record(OFF["pruning"], accuracy=0.7, latency=0.4, size=0.4)
    # Latencies are known to a percent, so .101 is not known to be slower than .1, and .103 is.
    values = [(0.5, 0.1, 0.3), (0.5, 0.101, 0.3), (0.5, 0.103, 0.3), (0.6, 0.4, 0.1), (0.6, 0.45, 0.5), (0.4, 0.2, 0.2)]
    beaten: list[set[str]] = []
    for number, (accuracy, latency, size) in enumerate(values):
        folder = tmp_path / str(number)
        folder.mkdir()
        rival = make_record(rivals(SIZE)["int8 alone"], accuracy=accuracy, latency=latency, size=size)
        found = tables(folder, [fast, good], [rival], objectives=objectives)
        row = next(row for row in found.rivals if row.name == "int8 alone")
        expected: set[str] = set()
        for pick in found.picks:
            no_larger = "size" not in objectives or pick.values.size_ratio <= size
            if pick.values.accuracy >= accuracy and pick.values.latency_ratio * 1.01 <= latency * 0.99 and no_larger:
                expected |= set(pick.picks)
        assert set(row.beaten_by) == expected
        beaten.append(expected)
    assert any(beaten) and not all(beaten)


def test_a_rival_is_not_beaten_by_what_luck_with_the_images_explains(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    right = rng.random(100) < 0.5
    luckier = right.copy()
    luckier[np.flatnonzero(~right)[:2]] = True  # two images more of a hundred
    rival = make_record(rivals(SIZE)["int8 alone"], latency=0.7, size=0.7)
    for number, (own, names) in enumerate([(right, True), (luckier, False), (np.ones(100, dtype=bool), True)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        pick = on_images(make_record(PICK, latency=0.1, size=0.1), own)
        [_, row, _] = tables(folder, [pick], [on_images(rival, right)]).rivals
        assert bool(row.beaten_by) is names, number


def test_a_rival_is_not_beaten_by_a_latency_of_another_host(tmp_path: Path) -> None:
    rival = make_record(rivals(SIZE)["int8 alone"], accuracy=0.1, latency=0.9, size=0.9)
    pick = make_record(PICK, accuracy=0.5, latency=0.1, size=0.1)
    for number, (host, beaten) in enumerate([("host", True), ("elsewhere", False)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        timings = [Timing(row=rival.id, latency=ratio(0.9, host=host))]
        [_, row, _] = tables(folder, [pick], [rival], timings).rivals
        assert bool(row.beaten_by) is beaten


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
    timings = [timing(0.5, 0.5, "all training")]
    found = tables(tmp_path, [make_record(PICK, accuracy=0.5, latency=0.5, size=0.25)], [failed, done], timings)
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
