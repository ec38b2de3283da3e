"""What the HTML report holds of a study's other targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.final import Final, Finals
from search.report.html.targets import targets_data
from search.results import summary
from tests.elsewhere import ACCURACY, BOARD, IDS, LATENCY, MAIN, PHONE, three_targets
from tests.studies import make_store, study


def found(folder: Path) -> dict[str, Any]:
    config, store = three_targets(folder)
    data = targets_data(summary(config, store, folder), store, folder)
    assert data is not None
    return data


def fronts(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {own["name"]: own for own in data["fronts"]}


def test_a_study_of_one_target_has_none(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert targets_data(summary(study(), store, tmp_path), store, tmp_path) is None


def test_each_target_has_its_own_front(tmp_path: Path) -> None:
    data = found(tmp_path)
    assert data["main"] == MAIN
    phone, board = (fronts(data)[name] for name in (PHONE, BOARD))
    held = [(own["id"], own["accuracy"], own["latency"]) for own in phone["members"]]
    assert held == [(IDS[name], ACCURACY[name], LATENCY[PHONE][name]) for name in ("small", "large")]
    assert (phone["batch"], board["batch"]) == (2, 1)
    assert phone["members"][1]["picks"] and phone["members"][1]["mb"] == pytest.approx(7.0)
    assert [row[phone["table"]["header"].index("record")] for row in phone["table"]["rows"]] == [
        IDS["small"],
        IDS["large"],
        "baseline",
    ]
    assert phone["hypervolume"] == pytest.approx(0.50 * 0.05 + 0.59 * 0.7)
    assert board["members"] == [] and board["hypervolume"] == 0


def test_it_says_how_far_targets_agree(tmp_path: Path) -> None:
    rows = {tuple(row["targets"]): row for row in found(tmp_path)["agreement"]}
    assert rows[MAIN, PHONE]["records"] == 3
    assert rows[MAIN, PHONE]["latency_tau"] == pytest.approx(1 / 3)  # two of three pairs are in the same order
    assert rows[MAIN, BOARD]["latency_tau"] is None


def test_it_says_what_was_measured_again_and_what_could_not_be(tmp_path: Path) -> None:
    _, store = three_targets(tmp_path)
    assert (fronts(found(tmp_path))[PHONE]["again"], fronts(found(tmp_path))[PHONE]["troubles"]) == (0, [])
    there = store.records[IDS["small"]].elsewhere[PHONE].measurement
    assert there is not None
    finals = Finals(tmp_path, PHONE)
    finals.append(Final(record_id=IDS["small"], latency=replace(there.latency, ratio=0.28, doubts=("it drifts",))))
    finals.append(Final(record_id=IDS["large"], reason="no such\nmodel"))
    phone = fronts(found(tmp_path))[PHONE]
    assert phone["again"] == 1
    assert phone["members"][0]["latency"] == 0.28
    doubted, failed = phone["troubles"]
    assert "it drifts" in doubted
    assert failed == f"{IDS['large']} could not be measured again: no such model"
    assert fronts(found(tmp_path))[BOARD]["troubles"] == []
