"""The fronts of all targets of a study measured again: each by its own figures, and none at the cost of another."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.artifact import MeasureLatency
from search.errors import MeasurementError, UnansweredError, UserError
from search.final import Finals
from search.finish import measure_fronts
from search.measure.latency import Latency
from search.measure.pairs import Effort
from search.record import Elsewhere, Record
from search.report.markdown import write_report
from search.results import summary
from search.store import Store
from search.study import StudyConfig
from search.workplace import Workplace
from spaces.recipe import Recipe
from tests.finals import exact_baseline, searched, timed
from tests.studies import tables

MAIN, PHONE, BOARD = TARGETS = ("onnxruntime-cpu", "phone", "board")
ACCURACY = {"fast": 0.50, "good": 0.60, "near": 0.59}
TRUTH = {"fast": 0.20, "good": 0.40, "near": 0.50}  # latency ratios: the last is behind the second in both
FLATTERED = TRUTH | {"near": 0.30}  # as one lucky measurement may have it


class Study:
    """A study whose search has ended, and a bench for each of its targets.

    Args:
        folder: where it is.
        seen: what its search saw as latency ratios, by target and record.
        split: one that its data has beside training and validation.
        final: settings of the last measurement.
    """

    def __init__(self, folder: Path, seen: dict[str, dict[str, float]], *, split: str = "train", **final: int) -> None:
        others = [{"name": PHONE, "runtime": "onnxruntime", "runs": 50}, {"name": BOARD, "runtime": "onnxruntime"}]
        content = {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": 64, "final": final}
        self.config = StudyConfig.model_validate({**content, "other_targets": others})
        self.folder, self.store = folder, Store(folder)
        self.store.append([_everywhere(exact_baseline(), {}), *(_searched(name, seen) for name in ACCURACY)])
        data = folder / "data.yaml"
        data.write_text(json.dumps({split: "images"}), encoding="utf-8")
        inputs: Any = SimpleNamespace(data=data, threads=1)
        self.place = Workplace(
            folder=folder,
            inputs=inputs,
            target=self.config.target,
            others=self.config.other_targets,
            baselines={},
            baseline_recipe=Recipe(image_size=64),
        )
        self.truth: dict[str, dict[str, float]] = dict.fromkeys(TARGETS, TRUTH)
        self.broken: dict[str, Exception] = {}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.runs: dict[str, int] = {}
        self.kill_at = -1  # the number of a measurement
        self.told: list[str] = []

    def measure(self) -> None:
        benches = {name: self._bench(name) for name in TARGETS}
        measure_fronts(self.config, self.store, self.place, benches, self.told.append)

    def times(self, target: str) -> dict[str, int]:
        """How often each file was timed there."""
        return {name: count for (where, name), count in self.calls.items() if where == target}

    def front(self, target: str) -> dict[str, float]:
        """The ratios of the members of its front."""
        result = summary(self.config, self.store, self.folder)
        own = result if target == MAIN else result["others"][target]
        return {member["record_id"]: member["latency_ratio"] for member in own["front"]}

    def report(self) -> str:
        write_report(self.config, self.store, summary(self.config, self.store, self.folder), self.folder)
        return (self.folder / "report.md").read_text(encoding="utf-8")

    def _bench(self, target: str) -> MeasureLatency:
        def measure(file: Path, effort: Effort) -> Latency:
            if self.calls.total() == self.kill_at:
                raise KeyboardInterrupt
            name = file.relative_to(self.folder).parts[1]
            self.calls[target, name] += 1
            self.runs[target] = effort.runs
            if error := self.broken.get(target):
                raise error
            return timed(self.truth[target][name], 0.001)

        return measure


def _searched(name: str, seen: dict[str, dict[str, float]]) -> Record:
    ratios = {target: seen.get(target, TRUTH)[name] for target in TARGETS}
    return _everywhere(searched(name, ACCURACY[name], ratios[MAIN]), ratios)


def _everywhere(record: Record, ratios: dict[str, float]) -> Record:
    """The record with the same accuracy on the other targets, and the same ratio where no other is given."""
    assert record.measurement is not None
    found: dict[str, Elsewhere] = {}
    for target in (PHONE, BOARD):
        latency = timed(ratios[target], 0.02) if ratios else record.measurement.latency
        measurement = record.measurement.model_copy(update={"latency": latency})
        found[target] = Elsewhere(artifact=record.artifact, measurement=measurement)
    return record.model_copy(update={"elsewhere": found})


def test_a_flattering_measurement_on_another_target_is_replaced(tmp_path: Path) -> None:
    study = Study(tmp_path, {PHONE: FLATTERED})
    assert study.front(PHONE) == FLATTERED
    study.measure()
    assert study.front(PHONE) == study.front(MAIN) == study.front(BOARD) == {"fast": 0.2, "good": 0.4}
    assert study.times(PHONE) == {"fast": 2, "good": 2, "near": 1}  # once it is known to be slow it is out
    assert study.times(MAIN) == {"fast": 2, "good": 2}
    assert study.runs == {MAIN: 400, PHONE: 100, BOARD: 400}  # twice the target's own
    lines = [json.loads(line) for line in (tmp_path / "final.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter(line["target"] for line in lines) == {None: 4, PHONE: 5, BOARD: 4}


def test_each_measurement_is_told_when_it_is_kept(tmp_path: Path) -> None:
    study = Study(tmp_path, {}, split="test")
    study.broken = {BOARD: MeasurementError("it crashed\nits runtime")}
    study.measure()
    assert len(study.told) == len((tmp_path / "final.jsonl").read_text(encoding="utf-8").splitlines())
    assert study.told[:2] == ["fast: latency ×0.200", "good: latency ×0.400"]
    assert "good on phone: latency ×0.400" in study.told
    assert "good on board: not measured: it crashed its runtime" in study.told
    told = len(study.told)
    study.broken = {}
    study.measure()
    assert "fast on board: latency ×0.200" in study.told[told:]


def test_the_report_has_the_new_figures_of_each_target(tmp_path: Path) -> None:
    study = Study(tmp_path, {PHONE: FLATTERED})
    assert study.report().count("Not measured again") == 2
    study.measure()
    text = study.report()
    assert "Not measured again" not in text
    phone = text[text.index(f"### {PHONE}") : text.index(f"### {BOARD}")]
    front, again = tables(phone)
    assert [row["latency"] for row in front] == ["×0.200", "×0.400", "×1.000"]
    found = {row["record"]: tuple(row.values())[1:] for row in again}
    assert found["near"] == ("×0.300", "×0.500", "0.500–0.501", "1", "no")


def test_near_ties_on_another_target_are_timed_more_often(tmp_path: Path) -> None:
    study = Study(tmp_path, {PHONE: TRUTH | {"near": 0.401}})
    study.truth[PHONE] = TRUTH | {"near": 0.3999}  # three looks do not tell it from the other either
    study.measure()
    assert study.times(PHONE) == {"fast": 2, "good": 3, "near": 3}
    assert study.times(MAIN) == {"fast": 2, "good": 2}


def test_what_was_timed_before_a_kill_is_not_timed_again(tmp_path: Path) -> None:
    study = Study(tmp_path, {PHONE: FLATTERED})
    for study.kill_at in (2, 7, 11):  # on each target
        with pytest.raises(KeyboardInterrupt):
            study.measure()
    study.kill_at = -1
    study.measure()
    assert study.times(PHONE) == {"fast": 2, "good": 2, "near": 1}
    assert study.times(MAIN) == study.times(BOARD) == {"fast": 2, "good": 2}


def test_the_limits_of_the_study_hold_for_each_target(tmp_path: Path) -> None:
    study = Study(tmp_path, {}, records=1, rounds=1)
    study.measure()
    assert [study.times(target) for target in TARGETS] == [{"fast": 1}] * 3


@pytest.mark.parametrize("error", [UnansweredError("bench:phone gave no answer"), UserError("pip:\nno network")])
def test_a_target_that_cannot_be_measured_costs_its_own_records_a_reason(tmp_path: Path, error: Exception) -> None:
    study = Study(tmp_path, {PHONE: FLATTERED, BOARD: FLATTERED})
    study.broken = {PHONE: error}
    study.measure()
    assert sum(study.times(PHONE).values()) == 1  # one answer that does not come takes an hour
    assert Finals(tmp_path, PHONE).failures() == dict.fromkeys(TRUTH, str(error))
    assert study.front(PHONE) == FLATTERED
    assert study.front(BOARD) == study.front(MAIN) == {"fast": 0.2, "good": 0.4}
    assert f"- near could not be measured again: {' '.join(str(error).split())}" in study.report()
    study.broken = {}
    study.measure()  # it is back
    assert study.front(PHONE) == {"fast": 0.2, "good": 0.4}
    assert Finals(tmp_path, PHONE).failures() == {}


def test_a_file_that_cannot_be_timed_is_tried_once_each_time(tmp_path: Path) -> None:
    study = Study(tmp_path, {})
    study.broken = {BOARD: MeasurementError("it crashed its runtime")}
    study.measure()
    assert study.times(BOARD) == {"fast": 1, "good": 1}
    study.measure()
    assert study.times(BOARD) == {"fast": 2, "good": 2}
    assert Finals(tmp_path, BOARD).failures() == dict.fromkeys(["fast", "good"], "it crashed its runtime")


def test_without_the_main_target_there_is_no_end(tmp_path: Path) -> None:
    study = Study(tmp_path, {})
    study.broken = {MAIN: UnansweredError("bench:onnxruntime-cpu gave no answer")}
    with pytest.raises(UnansweredError):
        study.measure()
    assert set(study.calls) == {(MAIN, "fast")}
    assert not (tmp_path / "final.jsonl").exists()  # so that it is tried again


def test_a_test_split_that_cannot_be_measured_costs_a_reason(tmp_path: Path) -> None:
    """The files are missing, as they may be of results from elsewhere."""
    study = Study(tmp_path, {}, split="test")
    study.measure()
    for target in (None, PHONE, BOARD):
        reasons = Finals(tmp_path, target).failures("test")
        assert set(reasons) == {"baseline", "fast", "good"}
        assert all("there is no " in reason for reason in reasons.values())
        assert Finals(tmp_path, target).failures() == {}
    text = study.report()
    assert text.count("- good could not be measured on the test split: there is no ") == 3
