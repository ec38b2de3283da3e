"""The catalogue as a user runs it: a row for each technique, whatever happens to it, and none measured twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from search.alone import Row, Task
from search.catalogue import NAMES, Plan, _Worker, chosen_names, measure_catalogue
from search.digits import make_digits
from search.errors import UserError
from spaces.techniques import TECHNIQUES, Setting
from tests.tiny import SIZE, tiny_model

FIRST = ["baseline", "finetune", "prune-l1", "lr-cosine", "distill-larger"]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("catalogue")
    torch.save({"model": tiny_model()}, folder / "tiny.pt")
    data = make_digits(folder / "digits", image_size=SIZE, counts={"train": 12, "val": 6, "test": 6})
    return Plan(model=folder / "tiny.pt", data=data, image_size=SIZE, epochs=1, jobs=2)


@pytest.fixture(scope="module")
def first(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[Row]]:
    out, seen = tmp_path_factory.mktemp("out"), list[Row]()
    return out, measure_catalogue(plan, FIRST, out, lambda row, done, total: seen.append(row)), seen


def test_each_row_says_what_the_technique_does_by_itself(first: tuple[Path, dict[str, Any], list[Row]]) -> None:
    _, catalogue, seen = first
    rows = {row["technique"]: row for row in catalogue["rows"]}
    assert list(rows) == FIRST and {row.technique for row in seen} == set(FIRST)
    assert (rows["baseline"]["size_ratio"], rows["baseline"]["accuracy_finetuned"]) == (1.0, None)
    assert rows["prune-l1"]["size_ratio"] < 0.5 and rows["prune-l1"]["parameters"] < rows["baseline"]["parameters"] / 2
    for name in ("finetune", "prune-l1", "lr-cosine"):
        low, high = rows[name]["latency_ratio_ci"]
        assert 0 < low <= rows[name]["latency_ratio"] <= high
        assert 0 <= rows[name]["accuracy_finetuned"] <= 1 and rows[name]["epochs"] == 1 and rows[name]["seconds"] >= 0
    # The cosine is the plain recipe's own schedule, so it is the plain recipe: one training, one measurement.
    assert {**rows["lr-cosine"], "technique": "", "seconds": 0} == {**rows["finetune"], "technique": "", "seconds": 0}


def test_a_technique_that_fails_is_a_row_with_its_error(first: tuple[Path, dict[str, Any], list[Row]]) -> None:
    row = first[1]["rows"][-1]
    assert "distill-larger needs the checkpoint of a larger model" in row["error"]
    assert row["size_ratio"] is None and row["accuracy_after"] is None


def test_the_files_have_the_rows_and_no_place_of_this_machine(first: tuple[Path, dict[str, Any], list[Row]]) -> None:
    out, catalogue, _ = first
    text = (out / "catalogue.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(catalogue))
    assert str(out.parent) not in text and catalogue["model"] == "tiny.pt" and catalogue["data"] == "digits/data.yaml"
    page = (out / "catalogue.md").read_text()
    assert all(f"`{name}`" in page for name in FIRST)


def test_rows_that_are_there_are_not_measured_again(plan: Plan, first: tuple[Path, dict[str, Any], list[Row]]) -> None:
    out, catalogue, _ = first
    seen: list[str] = []
    more = measure_catalogue(plan, [*FIRST, "fast-dfl"], out, lambda row, done, total: seen.append(row.technique))
    assert sorted(seen) == ["distill-larger", "fast-dfl"]  # a row with an error is tried again
    assert [row for row in more["rows"] if row["technique"] != "fast-dfl"][:4] == catalogue["rows"][:4]


def test_a_catalogue_of_something_else_is_not_mixed_in(
    plan: Plan, first: tuple[Path, dict[str, Any], list[Row]]
) -> None:
    other = Plan(**{**vars(plan), "epochs": 2})
    with pytest.raises(UserError, match=r"holds a catalogue of another epochs \(1, here 2\); choose another --out"):
        measure_catalogue(other, FIRST, first[0], lambda *_: None)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_a_process_that_dies_costs_its_row_and_no_other() -> None:
    worker, setting = _Worker(), Setting(image_size=SIZE)
    try:
        row = worker.measure(Task(name="relu", setting=setting, place=cast(Any, Deadly())))
        assert (row.technique, row.error[:31]) == ("relu", "the process that measured it di")
        assert "KeyError" in worker.measure(Task(name="unknown", setting=setting, place=cast(Any, None))).error
    finally:
        worker.close()


def test_names_are_chosen_by_patterns_in_the_order_of_the_catalogue() -> None:
    assert chosen_names(["w?", "prune-l?"], teacher=False) == ["prune-l1", "prune-l2", "w4", "w3", "w2", "w1"]
    assert chosen_names([], teacher=True) == list(NAMES) == ["baseline", "finetune", *TECHNIQUES]
    assert set(NAMES) - set(chosen_names([], teacher=False)) == {"distill-larger"}
    with pytest.raises(UserError, match=r"--only prune-l9: no technique has this name; there are baseline, finetune, "):
        chosen_names(["w4", "prune-l9"], teacher=False)
