"""The report of a study: its tables, its picture, and what the terminal shows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from search.front import PICKS
from search.record import Record
from search.report.doubts import doubt_sentences
from search.report.markdown import write_report
from search.report.progress import print_front
from search.results import summary
from search.store import Store
from spaces.recipe import Finetune, Recipe
from tests.fakes import make_baseline, make_record
from tests.studies import RECORDS, ids, make_store, study, tables


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)


@pytest.fixture
def written(store: Store, tmp_path: Path) -> str:
    write_report(study(), store, summary(study(), store, tmp_path), tmp_path)
    return (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_report_has_the_front_and_the_picks(written: str) -> None:
    front = tables(written)[0]
    assert [row["record"] for row in front] == [*ids("small", "good", "better"), "baseline"]
    assert [row["pick"] for row in front] == ["fastest, smallest", "recommended, knee", "most-accurate", "baseline"]
    assert {name for row in front[:-1] for name in row["pick"].split(", ")} == set(PICKS)
    cells = " ".join(front[1].values())
    for text in ("0.595", "+0.005", "0.400", "0.396–0.404", "4.00", "0.200", "2.00", "prune 0.3 l2/layer"):
        assert text in cells


def test_the_report_says_how_it_was_measured_and_what_was_lost(written: str) -> None:
    for fact in ("abc123", "a processor", "onnxruntime 1.0", "seed 0", "8 records: 5 complete, 1 failed", "64 px"):
        assert fact in written
    lost = tables(written)[1]
    assert [(row["record"], row["state"]) for row in lost] == [
        (RECORDS[state].id, state) for state in ("failed", "screened", "stopped")
    ]
    assert [row["reason"] for row in lost] == ["OOM / at epoch 3", "too slow", "hopeless"]
    assert "test split" not in written


def test_the_report_says_what_the_search_looked_at_and_saved(store: Store, tmp_path: Path) -> None:
    recipe = Recipe(image_size=64, finetune=Finetune(epochs=40))
    quarter = make_record(recipe, state="stopped", reason="behind").model_copy(update={"curve": ((9, 0.1),)})
    store.append([quarter])
    engine = {
        "sampler": "tpe",
        "epochs": 123,
        "candidates": {"seen": 50, "latency": 20, "no gain": 7},
        "errors": {"latency": 0.25, "size": None, "accuracy": 0.02},
    }
    (tmp_path / "engine.json").write_text(json.dumps(engine), encoding="utf-8")
    result = summary(study(), store, tmp_path)
    write_report(study(), store, result, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for fact in (
        "Sampler tpe; 123 epochs",
        "50 candidates",
        "20 for latency, 7 for no gain",
        "latency 0.25, accuracy 0.02",
    ):
        assert fact in text
    assert "saved 31 epochs" in text


def test_the_report_names_measurements_that_give_reason_to_doubt_them(store: Store, tmp_path: Path) -> None:
    record = make_record(Recipe(image_size=64, finetune=Finetune(epochs=40)))
    assert record.measurement is not None
    latency = replace(record.measurement.latency, doubts=("the baseline became 9% slower",))
    measurement = record.measurement.model_copy(update={"latency": latency})
    store.append([record.model_copy(update={"measurement": measurement})])
    write_report(study(), store, summary(study(), store, tmp_path), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"- To be doubted: {record.id}: the baseline became 9% slower." in text
    assert text.lower().count("to be doubted") == 1


def test_doubts_of_one_kind_are_one_sentence() -> None:
    base, records = make_record(Recipe(image_size=64)), list[Record]()
    for number in range(9):
        assert base.measurement is not None
        doubts = (f"the ratio is known to {number}%: it takes more runs", *(["others"] if number > 6 else []))
        latency = replace(base.measurement.latency, doubts=doubts)
        measurement = base.measurement.model_copy(update={"latency": latency})
        records.append(base.model_copy(update={"id": f"r{number}", "measurement": measurement}))
    assert doubt_sentences(records) == [
        "9 records: it takes more runs (r0, r1, r2, r3 and 5 more).",
        "2 records: others (r7, r8).",
    ]
    assert doubt_sentences(records[:1]) == ["r0: the ratio is known to 0%: it takes more runs."]


def test_times_of_several_pictures_say_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for record in (make_baseline(), RECORDS["good"]):
        assert record.measurement
        latency = replace(record.measurement.latency, batch=4)
        store.append(
            [record.model_copy(update={"measurement": record.measurement.model_copy(update={"latency": latency})})]
        )
    config = study(target={"batch": 4})
    write_report(config, store, summary(config, store, tmp_path), tmp_path)
    written = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert [row["p50 ms of 4"] for row in tables(written)[0]] == ["4.00", "10.00"]
    assert "4 pictures in a run" in written


def test_the_report_shows_the_test_split_beside_validation(store: Store, tmp_path: Path) -> None:
    result = summary(study(), store, tmp_path)
    for member in [result["baseline"], *result["front"]]:
        member["test"] = {"map50_95": member["accuracy"] - 0.1, "low": None}
    result["front"][1]["test"] |= {"low": 0.4, "high": 0.6}
    write_report(study(), store, result, tmp_path)
    table = tables((tmp_path / "report.md").read_text(encoding="utf-8"))[1]
    assert {"record": RECORDS["good"].id, "val": "0.595", "test": "0.495 ±0.100"} in table
    assert {"record": "baseline", "val": "0.600", "test": "0.500"} in table


def test_the_picture_shows_every_finished_record_and_the_front(written: str, tmp_path: Path) -> None:
    root = ElementTree.parse(tmp_path / "front.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    marks = Counter(use.get("style", "") for use in root.iter("{http://www.w3.org/2000/svg}use"))
    # A mark each, and one in the legend: 4 finished records with finite values, 3 on the front (with the two ends of
    # their intervals), and the baseline.
    colours = {"#9aa5b1": 4 + 1, "#0b6e4f": 3 * (3 + 1), "#c8553d": 1 + 1}
    assert {c: sum(n for style, n in marks.items() if f"fill: {c}" in style) for c in colours} == colours


def test_a_study_without_any_finished_record_has_a_report_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append([make_baseline(), RECORDS["failed"]])
    result = summary(study(), store, tmp_path)
    assert (result["front"], result["hypervolume"], result["host"]) == ([], 0.0, None)
    write_report(study(), store, result, tmp_path)
    assert "1 failed" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert ElementTree.parse(tmp_path / "front.svg").getroot() is not None


def test_the_terminal_shows_the_front_and_what_to_type_next(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_front(summary(study(), store, tmp_path), tmp_path)
    text = capsys.readouterr().out
    assert all(record_id in text for record_id in ids("small", "good", "better"))
    assert f"python -m search front {tmp_path} --pick recommended" in text
