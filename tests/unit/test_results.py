"""What a study found: the front against brute force, and the object that is printed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import UserError
from search.final import Final, Finals
from search.record import Record
from search.report.markdown import write_report
from search.results import choose, front_records, summary, within
from search.store import Store
from search.study import Constraints
from spaces.recipe import Recipe
from tests.fakes import make_baseline, make_record, on_images
from tests.studies import HOST, RECORDS, ids, make_store, pruned, study, tables

MEMBER_KEYS = {
    "record_id",
    "host",
    "accuracy",
    "accuracy_ci",
    "accuracy_drop",
    "accuracy_drop_ci",
    "ties",
    "rivals",
    "map50",
    "precision",
    "recall",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_quiet",
    "latency_batch",
    "fps",
    "latency_ratio",
    "latency_ratio_ci",
    "size_bytes",
    "size_ratio",
    "parameters",
    "flops",
    "test",
    "recipe",
    "artifact",
    "sha256",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


def front_ids(result: dict[str, Any]) -> list[str]:
    return [member["record_id"] for member in result["front"]]


def test_the_summary_by_hand(store: Store, tmp_path: Path) -> None:
    result = summary(study(), store, tmp_path)
    assert set(result) == {
        "metric", "baseline", "front", "undecided", "hypervolume", "records", "states", "host",
        "target", "others", "agreement",
    }  # fmt: skip
    assert (result["target"], result["others"], result["agreement"]) == ("onnxruntime-cpu", {}, [])
    assert all(set(member) == MEMBER_KEYS for member in [result["baseline"], *result["front"]])
    assert front_ids(result) == ids("small", "good", "better")  # fastest first
    # Steps of (accuracy x latency saved) below latency ratio 1, from the most accurate member down.
    assert result["hypervolume"] == pytest.approx(0.61 * (1 - 0.7) + 0.595 * (0.7 - 0.4) + 0.30 * (0.4 - 0.2))
    assert result["records"] == 8
    assert result["states"] == {"complete": 5, "failed": 1, "screened": 1, "stopped": 1}
    assert result["host"] == HOST
    assert result["baseline"]["record_id"] == "baseline"
    assert result["baseline"]["accuracy_drop"] == 0
    assert result["baseline"]["latency_ratio"] == result["baseline"]["size_ratio"] == 1


def test_what_was_measured_on_another_machine_is_not_on_the_front(store: Store, tmp_path: Path) -> None:
    before = front_ids(summary(study(), store, tmp_path))
    best = make_record(Recipe(image_size=96), accuracy=0.9, latency=0.1, size=0.01)
    assert best.measurement
    moved = best.model_copy(update={"measurement": best.measurement.model_copy(update={"host": "elsewhere"})})
    store.append([moved])
    assert front_ids(summary(study(), store, tmp_path)) == before
    store.append([best.model_copy(update={"id": "here"})])
    assert front_ids(summary(study(), store, tmp_path)) == ["here"]


def test_a_member_is_flat_and_says_what_was_measured(store: Store, tmp_path: Path) -> None:
    good = RECORDS["good"]
    member = summary(study(), store, tmp_path)["front"][1]
    assert member.pop("recipe") == good.recipe.model_dump(mode="json")
    assert member.pop("accuracy_drop") == pytest.approx(0.005)
    assert member.pop("latency_ratio_ci") == pytest.approx([0.396, 0.404])
    assert member == {
        "record_id": good.id,
        "accuracy": 0.595,
        "accuracy_ci": None,
        "accuracy_drop_ci": None,
        "ties": [],
        "rivals": [],
        "map50": 0.595,
        "precision": 0.5,
        "recall": 0.5,
        "latency_ms_p50": 4.0,
        "latency_ms_p95": pytest.approx(4.4),
        "latency_ms_quiet": 4.0,
        "latency_batch": 1,
        "fps": 250.0,
        "latency_ratio": 0.4,
        "size_bytes": 2_000_000,
        "size_ratio": 0.2,
        "parameters": 1000,
        "flops": 2000,
        "test": None,
        "artifact": f"artifacts/{good.id}/model.onnx",
        "sha256": "0" * 64,
        "host": "host",
    }


def test_the_summary_is_json(store: Store, tmp_path: Path) -> None:
    result = summary(study(), store, tmp_path)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_recipe_in_the_summary_makes_the_same_recipe(store: Store, tmp_path: Path) -> None:
    for member in summary(study(), store, tmp_path)["front"]:
        assert Recipe.model_validate(member["recipe"]).id == member["record_id"]


def test_size_as_an_objective_lets_the_smallest_in(store: Store, tmp_path: Path) -> None:
    result = summary(study(objectives=["accuracy", "latency", "size"]), store, tmp_path)
    assert set(front_ids(result)) == set(ids("small", "good", "better", "dominated"))


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ({"max_accuracy_drop": 0.01}, ["good", "better"]),
        ({"max_accuracy_drop": 0.0}, ["better"]),
        ({"max_latency_ratio": 0.4}, ["small", "good"]),
        ({"max_latency_ms": 4.0}, ["small", "good"]),
        ({"max_size_mb": 2.0}, ["small", "good"]),
        ({"max_size_mb": 1.95}, ["small", "dominated"]),  # a megabyte is a million bytes
        ({"max_latency_ratio": 0.5, "max_accuracy_drop": 0.01, "max_size_mb": 1}, ["dominated"]),  # the others are out
        ({"max_size_mb": 0.1}, []),
    ],
)
def test_constraints_are_kept(store: Store, tmp_path: Path, limits: dict[str, float], names: list[str]) -> None:
    result = summary(study(constraints=limits), store, tmp_path)
    assert front_ids(result) == ids(*names)
    if not names:
        assert result["hypervolume"] == 0.0


def test_a_limit_in_milliseconds_is_not_about_what_others_did(tmp_path: Path) -> None:
    """A file of 4 ms, and one of 6, that were timed while others held the core for half of the time."""
    store = Store(tmp_path)
    quick, slow = (make_record(pruned(ratio), accuracy=ratio, latency=ratio) for ratio in (0.4, 0.6))
    for record in (quick, slow):
        assert record.measurement is not None
        ms = 2 * record.measurement.latency.p50_ms
        latency = replace(record.measurement.latency, p50_ms=ms, baseline_p50_ms=20.0, waiting=0.5)
        measured = record.measurement.model_copy(update={"latency": latency})
        store.append([record.model_copy(update={"measurement": measured})])
    store.append([make_baseline()])
    config = within(study(), Constraints(max_latency_ms=5.0))
    [member] = summary(config, store, tmp_path)["front"]
    assert member["record_id"] == quick.id
    assert (member["latency_ms_p50"], member["latency_ms_quiet"]) == (8.0, pytest.approx(4.0))


def test_an_accuracy_drop_of_exactly_the_limit_is_within_it(tmp_path: Path) -> None:
    """0.585 - 0.575 is 0.010000000000000009 in floating point."""
    store = Store(tmp_path)
    store.append([make_baseline(accuracy=0.585), make_record(pruned(0.5), accuracy=0.575)])
    assert len(front_records(study(constraints={"max_accuracy_drop": 0.01}), store)) == 1


def test_without_a_baseline_the_user_is_told_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no baseline yet; go on with `python -m search resume"):
        summary(study(), Store(tmp_path), tmp_path)


def test_what_was_measured_after_the_search_takes_the_place_of_what_the_search_saw(
    store: Store, tmp_path: Path
) -> None:
    good = RECORDS["good"]
    assert good.measurement is not None and good.measurement.accuracy is not None
    test = replace(good.measurement.accuracy, split="test", low=0.5, high=0.7, resampled="AAAA")
    slower = replace(good.measurement.latency, ratio=0.45, ratio_low=0.44, ratio_high=0.46)
    finals = Finals(tmp_path)
    finals.append(Final(record_id=good.id, accuracy=test))
    finals.append(Final(record_id=good.id, latency=slower))
    result = summary(study(), Store(tmp_path), tmp_path)
    member = result["front"][1]
    assert (member["latency_ratio"], member["latency_ratio_ci"]) == (0.45, [0.44, 0.46])
    assert member["test"] == {
        "split": "test", "images": 8, "low": 0.5, "high": 0.7, "map50_95": 0.595, "map50": 0.595, "precision": 0.5,
        "recall": 0.5,
    }  # fmt: skip
    assert [other["test"] for other in [result["baseline"], result["front"][0]]] == [None, None]
    assert store.records[good.id].measurement == good.measurement
    write_report(study(), store, result, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    [again] = next(rows for rows in tables(text) if "again" in rows[0])
    assert list(again.values()) == [good.id, "×0.400", "×0.450", "0.440–0.460", "1", "yes"]
    slow = replace(slower, ratio=0.60, ratio_low=0.59, ratio_high=0.61, doubts=("a noisy neighbour",))
    finals.append(Final(record_id=good.id, latency=slow))  # slower than what it dominated
    assert front_ids(summary(study(), Store(tmp_path), tmp_path)) == ids("small", "dominated", "good", "better")
    finals.append(Final(record_id=RECORDS["better"].id, reason="it crashed"))
    write_report(study(), store, summary(study(), store, tmp_path), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"- Still to be doubted: {good.id}: a noisy neighbour." in text
    assert f"- {RECORDS['better'].id} could not be measured again: it crashed" in text


def test_a_member_says_what_it_cannot_be_told_apart_from_and_what_may_dominate_it(tmp_path: Path) -> None:
    right = np.arange(100) < 60
    others = {  # right on as many images or one less, but on others
        "fast": (0.40, np.arange(100) >= 41),
        "good": (0.50, right),
        "tie": (0.505, np.arange(100) >= 42),
        "worse": (0.60, np.arange(100) < 20),
    }
    store = Store(tmp_path)
    records = [on_images(make_record(pruned(0.5), latency=ratio, record_id=name), hits)
               for name, (ratio, hits) in others.items()]  # fmt: skip
    store.append([on_images(make_baseline(), right), *records])
    result = summary(study(), store, tmp_path)
    fast, good = result["front"]
    assert (fast["record_id"], fast["ties"], fast["rivals"]) == ("fast", [], [])
    assert (good["record_id"], good["ties"], good["rivals"]) == ("good", ["tie"], ["fast"])
    assert result["undecided"] == ["tie"]
    assert good["accuracy_ci"] == pytest.approx([0.6 - 0.096, 0.6 + 0.096], abs=0.001)
    assert good["accuracy_drop_ci"] == [0.0, 0.0]  # right on the same images as the baseline
    # 59 of 100 images against 60, of which 18 are right in both cases: the difference is 0.01, with the error of 82
    # images that are ones or minus ones.
    assert fast["accuracy_drop_ci"] == pytest.approx(
        [0.01 - 1.96 * 0.0905, 0.01 + 1.96 * 0.0905], abs=0.02
    )  # fmt: skip
    assert len(json.dumps(good)) < 2500  # what is needed for a comparison is not shown
    write_report(study(), store, result, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert [row["sure"] for row in tables(text)[0]] == ["yes", "tie", "yes"]
    assert tables(text)[0][1]["mAP50-95"] == "0.600 ±0.096"
    assert "- good cannot be told apart from tie." in text
    assert "- good may be dominated by fast:" in text
    assert "not surely dominated by a member: 1 record" in text
    root = ElementTree.parse(tmp_path / "front.svg").getroot()
    marks = Counter(use.get("style", "") for use in root.iter("{http://www.w3.org/2000/svg}use"))
    # Two members and the legend: a mark with the four ends of its two intervals.
    assert sum(n for style, n in marks.items() if "fill: #0b6e4f" in style) == 3 * 5


def test_of_copies_on_the_front_the_smallest_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    copies = [make_record(pruned(0.5), size=size, record_id=f"s{size}") for size in (0.3, 0.2, 0.25)]
    store.append([make_baseline(), *copies])
    result = summary(study(), store, tmp_path)
    assert front_ids(result) == ["s0.2"]
    assert result["front"][0]["ties"] == ["s0.3", "s0.25"]


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("fastest", "small"),
        ("smallest", "small"),
        ("most-accurate", "better"),
        ("recommended", "good"),  # the fastest within a point of the baseline
        ("knee", "good"),
    ],
)
def test_choose(store: Store, tmp_path: Path, name: str, member: str) -> None:
    assert choose(summary(study(), store, tmp_path), name)["record_id"] == RECORDS[member].id


def test_choose_from_an_empty_front(store: Store, tmp_path: Path) -> None:
    result = summary(study(constraints={"max_size_mb": 0.1}), store, tmp_path)
    with pytest.raises(UserError, match="the front is empty: no record is complete and within the constraints"):
        choose(result, "knee")


# --- the front against brute force, on values in twentieths so that the truth is counted in whole numbers

states = st.sampled_from(["complete"] * 6 + ["failed", "screened", "stopped"])
broken = st.sampled_from([None] * 8 + [math.nan, math.inf, -math.inf])
rows = st.tuples(states, st.integers(0, 20), st.integers(1, 20), st.integers(1, 20), broken, st.booleans())
Row = tuple[Any, int, int, int, float | None, bool]


def make(number: int, row: Row) -> Record:
    state, accuracy, latency, size, not_finite, in_latency = row
    return make_record(
        pruned(0.5),
        accuracy=accuracy / 20 if not_finite is None or in_latency else not_finite,
        latency=latency / 20 if not_finite is None or not in_latency else not_finite,
        size=size / 20,
        state=state,
        record_id=f"r{number}",
    )


def brute_front(rows: Sequence[Row], objectives: list[str], drop: int | None, slow: int | None) -> set[str]:
    kept: dict[str, tuple[int, ...]] = {}
    for number, (state, accuracy, latency, size, not_finite, _) in enumerate(rows):
        values = {"accuracy": -accuracy, "latency": latency, "size": size}
        within = (drop is None or 12 - accuracy <= drop) and (slow is None or latency <= slow)
        if state == "complete" and not_finite is None and within:
            kept[f"r{number}"] = tuple(values[name] for name in objectives)
    front = {
        name: own
        for name, own in kept.items()
        if not any(all(a <= b for a, b in zip(o, own, strict=True)) and o != own for o in kept.values())
    }
    sizes = {name: (rows[int(name[1:])][3], int(name[1:])) for name in front}
    return {name for name, own in front.items() if sizes[name] == min(sizes[o] for o in front if front[o] == own)}


def test_a_limit_brings_up_what_only_its_violators_hid(store: Store, tmp_path: Path) -> None:
    def found(**limits: float) -> list[str]:
        return front_ids(summary(within(study(), Constraints.model_validate(limits)), store, tmp_path))

    assert found(max_size_mb=RECORDS["dominated"].measurement.size_bytes / 1e6) == ids("dominated")  # type: ignore[union-attr]
    assert found(max_accuracy_drop=0.01) == ids("good", "better")
    assert found(max_latency_ms=RECORDS["good"].measurement.latency.p50_ms) == ids("small", "good")  # type: ignore[union-attr]
    assert found() == ids("small", "good", "better")


def test_of_two_limits_the_tighter_one_holds() -> None:
    own = study(constraints={"max_accuracy_drop": 0.02, "max_size_mb": 3.0})
    both = within(own, Constraints(max_accuracy_drop=0.05, max_size_mb=1.0, max_latency_ms=4.0)).constraints
    assert both == Constraints(max_accuracy_drop=0.02, max_size_mb=1.0, max_latency_ms=4.0)


@given(
    st.lists(rows, max_size=12),
    st.sampled_from([["accuracy", "latency"], ["size", "accuracy"], ["accuracy", "latency", "size"]]),
    st.none() | st.integers(0, 12),
    st.none() | st.integers(1, 20),
)
@settings(deadline=None)
def test_the_front_is_the_one_of_brute_force(
    rows: list[Row], objectives: list[str], drop: int | None, slow: int | None
) -> None:
    limits = {
        "max_accuracy_drop": None if drop is None else drop / 20,
        "max_latency_ratio": None if slow is None else slow / 20,
    }
    store = Store(Path("there is none"))
    store.records = {
        record.id: record for record in [make_baseline(accuracy=0.6), *(make(n, row) for n, row in enumerate(rows))]
    }
    front = front_records(study(objectives=objectives, constraints=limits), store)
    assert {record.id for record in front} == brute_front(rows, objectives, drop, slow)
    latencies = [record.measurement.latency.ratio for record in front if record.measurement]
    assert latencies == sorted(latencies)
