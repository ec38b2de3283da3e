"""A study followed from outside: every record is told once, whatever happens to its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from search.live.follow import Follower, Tail, encoded
from search.results import front_records, summary
from search.store import Store, append_lines, write_atomically
from search.timeline import growth
from spaces.recipe import Recipe
from tests.fakes import make_baseline, make_record
from tests.studies import RECORDS, ids, pruned, study


def begin(folder: Path) -> Store:
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "study.yaml", study().to_yaml())
    store = Store(folder)
    for record in RECORDS.values():
        store.start(record.recipe)
    return store


class Reader:
    """What the page does with the answers."""

    def __init__(self, follower: Follower) -> None:
        self.follower, self.token = follower, ""
        self.records: dict[str, list[Any]] = {}
        self.moments: list[list[float]] = []

    def ask(self) -> dict[str, Any]:
        found = self.follower.changes(self.token, len(self.records.get("id", [])), len(self.moments))
        if found["token"] != self.token:
            self.records, self.moments, self.token = {}, [], found["token"]
        for name, values in found["records"].items():
            self.records.setdefault(name, []).extend(values)
        self.moments = [*self.moments[: found["kept_moments"]], *found["moments"]]
        return json.loads(encoded(found))


def test_a_reader_ends_up_with_every_record_once(tmp_path: Path) -> None:
    store, reader = begin(tmp_path), Reader(Follower(tmp_path))
    assert reader.ask()["study"]["baseline"] is None
    store.append([make_baseline()])
    for number, record in enumerate(RECORDS.values(), start=1):
        store.append([record])
        found = reader.ask()
        assert found["records"]["id"] == [record.id]
        assert len(reader.records["id"]) == number == len(reader.moments)
        assert reader.ask()["records"].get("id", []) == []
    result = summary(study(), store, tmp_path)
    assert found["states"] == result["states"]
    assert [reader.records["id"][row] for row in found["front"]] == ids("small", "good", "better")
    assert [record.id for record in front_records(study(), store)] == ids("small", "good", "better")
    assert found["hypervolume"] == pytest.approx(result["hypervolume"])
    assert found["study"]["baseline"]["accuracy"] == 0.6
    assert found["study"]["batch"] == 1
    told = dict(zip(reader.records["id"], reader.records["accuracy"], strict=True))
    accuracies = {"small": 0.3, "good": 0.595, "better": 0.61, "dominated": 0.59}  # "nan" has none
    assert {name: value for name, value in told.items() if value is not None} == {
        RECORDS[name].id: value for name, value in accuracies.items()
    }
    assert reader.moments == [[m.minutes, m.trials, m.epochs, m.hypervolume] for m in growth(study(), store)]


def test_a_trial_whose_records_come_in_two_looks_is_one_moment(tmp_path: Path) -> None:
    store, reader = begin(tmp_path), Reader(Follower(tmp_path))
    fp32 = Recipe.model_validate({**pruned(0.5).model_dump(), "quantize": {"kind": "fp32"}})
    store.append([make_baseline(), make_record(pruned(0.5), accuracy=0.3)])
    reader.ask()
    assert len(reader.moments) == 1
    before = reader.moments[0][3]
    store.append([make_record(fp32, accuracy=0.5)])
    reader.ask()
    assert len(reader.moments) == 1
    assert reader.moments[0][3] > before


def test_a_study_may_begin_later(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    reader = Reader(Follower(folder))
    found = reader.ask()
    assert (found["study"], found["alive"], found["live"], found["report"]) == (None, False, None, False)
    begin(folder).append([make_baseline(), RECORDS["good"]])
    assert reader.ask()["study"]["title"] == "cats"
    assert reader.records["id"] == ids("good")


def test_a_folder_that_is_another_one_is_told_anew(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    begin(folder).append([make_baseline(), RECORDS["good"], RECORDS["small"]])
    reader = Reader(Follower(folder))
    reader.ask()
    token = reader.token
    begin(tmp_path / "other").append([make_baseline(), RECORDS["better"], RECORDS["dominated"], RECORDS["good"]])
    shutil.rmtree(folder)
    (tmp_path / "other").rename(folder)
    reader.ask()
    assert reader.token != token
    assert reader.records["id"] == ids("better", "dominated", "good")
    shutil.rmtree(folder)
    assert reader.ask()["study"] is None


def test_a_line_counts_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path)
    assert list(tail) == []
    path.write_bytes(b"one\ntw")
    assert list(tail) == ["one"]
    with path.open("ab") as file:
        file.write("o\u2028\nthree".encode())
    assert list(tail) == ["two\u2028"]
    assert not tail.restarted()
    append_lines(path, ["four"])  # as a driver does after a kill: the torn line is cut off
    assert not tail.restarted()
    assert list(tail) == ["four"]
    path.write_bytes(b"new\n")
    assert tail.restarted()


def test_a_recipe_is_told_as_it_is(tmp_path: Path) -> None:
    begin(tmp_path).append([make_baseline(), RECORDS["good"]])
    follower = Follower(tmp_path)
    follower.changes("", 0, 0)
    text = follower.recipe(RECORDS["good"].id)
    assert text is not None and Recipe.from_yaml(text) == RECORDS["good"].recipe
    assert follower.recipe("../study") is None
