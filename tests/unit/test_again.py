"""Measuring the front again: what is timed and how often, and that what is reported then does not flatter."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.again import measure_again, measure_test, patient
from search.errors import UnansweredError
from search.final import Final, Finals, pooled
from search.measure.latency import Latency, MeasurementError
from search.noise import latency_differences
from search.record import Record
from search.results import front_records, summary
from search.store import Store
from search.study import FinalSettings, StudyConfig, Target
from search.tasks.accuracy import Accuracy
from search.tasks.resample import RESAMPLES, packed
from spaces.recipe import Recipe
from tests.fakes import make_record, on_images
from tests.finals import searched, stored, timed


def study(**final: int) -> StudyConfig:
    content = {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": 64, "final": final}
    return StudyConfig.model_validate(content)


class Bench:
    """Ratios with a known truth and noise; counts who was measured."""

    def __init__(self, truth: dict[str, float], noise: float, seed: int = 0) -> None:
        self.truth, self.noise = truth, noise
        self.calls: Counter[str] = Counter()
        self._rng = np.random.default_rng(seed)

    def __call__(self, record: Record) -> Latency:
        self.calls[record.id] += 1
        return timed(self.truth[record.id] * math.exp(self._rng.normal(0, self.noise)), 1.96 * self.noise)


def no_accuracy(record: Record, split: str) -> Accuracy:
    raise AssertionError("the search has seen the whole validation split")


def test_only_what_may_be_on_the_front_is_timed_and_twice_where_it_is_clear(tmp_path: Path) -> None:
    records = [searched("a", 0.50, 0.2), searched("b", 0.60, 0.4), searched("far", 0.49, 0.3)]
    store, bench = stored(tmp_path, records), Bench({"a": 0.2, "b": 0.4}, 0.001)
    measure_again(study(), store, Finals(tmp_path), bench, no_accuracy)
    assert bench.calls == {"a": 2, "b": 2}
    measure_again(study(), store, Finals(tmp_path), bench, no_accuracy)  # read back: nothing is measured again
    assert bench.calls == {"a": 2, "b": 2}


def test_near_ties_are_timed_until_they_are_decided_or_a_tie(tmp_path: Path) -> None:
    """The second is a little less accurate: it is a member only if it is faster, which one look or none can tell."""
    records = [searched("a", 0.60, 0.400), searched("b", 0.59, 0.401), searched("c", 0.50, 0.2)]

    def look(second: float, folder: Path) -> Counter[str]:
        folder.mkdir()
        store, bench = stored(folder, records), Bench({"a": 0.4, "b": second, "c": 0.2}, 0.004, seed=1)
        measure_again(study(), store, Finals(folder), bench, no_accuracy)
        return bench.calls

    assert look(0.38, tmp_path / "decided") == {"a": 2, "b": 2, "c": 2}
    assert look(0.40, tmp_path / "tie") == {"a": 3, "b": 3, "c": 2}


def test_a_record_that_the_search_took_for_slower_gets_its_place(tmp_path: Path) -> None:
    store = stored(tmp_path, [searched("a", 0.60, 0.400, 0.05), searched("b", 0.59, 0.410, 0.05)])
    bench = Bench({"a": 0.400, "b": 0.380}, 0.001)
    config = study()
    assert [record.id for record in front_records(config, store)] == ["a"]
    measure_again(config, store, Finals(tmp_path), bench, no_accuracy)
    result = summary(config, store, tmp_path)
    assert [member["record_id"] for member in result["front"]] == ["b", "a"]
    assert result["front"][0]["latency_ratio"] == pytest.approx(0.38, rel=0.005)
    again = [member["latency_ratio"] for member in result["front"]]
    assert summary(config, Store(tmp_path), tmp_path)["front"][1]["latency_ratio"] == again[1]


def test_what_makes_a_members_place_doubtful_is_timed_too(tmp_path: Path) -> None:
    """Off the front, as another is faster and more accurate on these images; on others it may be better than both."""
    hits = {"member": np.arange(100) < 60, "quick": np.arange(100) >= 41, "rival": np.arange(100) >= 42}
    truth = {"member": 0.40, "quick": 0.30, "rival": 0.31}
    records = [on_images(searched(name, 0.6, truth[name], 0.001), own) for name, own in hits.items()]
    store, bench, config = (
        stored(tmp_path, [*records, searched("worse", 0.2, 0.5, 0.001)]),
        Bench(truth, 0.0005),
        study(),
    )
    front = {own["record_id"]: own["rivals"] for own in summary(config, store, tmp_path)["front"]}
    assert front == {"quick": [], "member": ["quick", "rival"]}
    measure_again(config, store, Finals(tmp_path), bench, no_accuracy)
    assert set(bench.calls) == {"member", "quick", "rival"}


def test_no_more_files_are_timed_than_the_study_allows(tmp_path: Path) -> None:
    records = [searched(f"r{n}", 0.5 + n / 100, 0.2 + n / 20) for n in range(6)]
    bench = Bench({record.id: 0.2 + n / 20 for n, record in enumerate(records)}, 0.001)
    measure_again(study(records=4), stored(tmp_path, records), Finals(tmp_path), bench, no_accuracy)
    assert list(bench.calls.values()) == [2] * 4


def test_all_files_are_timed_once_before_any_is_timed_again(tmp_path: Path) -> None:
    """So that what the host is like for minutes is not in all that is known of one file."""
    records = [searched(f"r{n}", 0.5 + n / 100, 0.2 + n / 20) for n in range(4)]
    finals = Finals(tmp_path)
    bench = Bench({record.id: 0.2 + n / 20 for n, record in enumerate(records)}, 0.001)
    measure_again(study(), stored(tmp_path, records), finals, bench, no_accuracy)
    assert [final.record_id for final in finals.all] == [record.id for record in records] * 2


def test_what_others_disturb_is_timed_again_and_does_not_count(tmp_path: Path) -> None:
    store = stored(tmp_path, [searched("a", 0.5, 0.2), searched("b", 0.6, 0.4)])
    bench = Bench({"a": 0.2, "b": 0.4}, 0.001)

    def time_file(record: Record) -> Latency:
        found = bench(record)
        first = record.id == "a" and bench.calls["a"] == 1
        return replace(found, ratio=0.25, ratio_low=0.249, ratio_high=0.251, disturbed=True) if first else found

    measure_again(study(), store, Finals(tmp_path), time_file, no_accuracy)
    assert bench.calls == {"a": 3, "b": 2}
    again = Finals(tmp_path).applied(store).records["a"].measurement
    assert again is not None
    assert again.latency.ratio == pytest.approx(0.2, rel=0.005)
    assert again.latency.ratio_high < 0.21


def test_a_study_may_time_each_file_once(tmp_path: Path) -> None:
    bench = Bench({"a": 0.2}, 0.001)
    measure_again(study(rounds=1), stored(tmp_path, [searched("a", 0.5, 0.2)]), Finals(tmp_path), bench, no_accuracy)
    assert bench.calls == {"a": 1}


def test_a_file_that_cannot_be_timed_keeps_the_figures_of_the_search(tmp_path: Path) -> None:
    store = stored(tmp_path, [searched("a", 0.5, 0.2), searched("b", 0.6, 0.4)])
    bench = Bench({"a": 0.21}, 0.001)

    def fails(record: Record) -> Latency:
        if record.id == "b":
            raise MeasurementError("b crashed its runtime")
        return bench(record)

    measure_again(study(), store, Finals(tmp_path), fails, no_accuracy)
    finals = Finals(tmp_path)
    assert finals.failures() == {"b": "b crashed its runtime"}
    ratios = [record.measurement.latency.ratio for record in finals.applied(store).searched if record.measurement]
    assert ratios == [pytest.approx(0.21, rel=0.005), 0.4]


def test_a_bench_that_is_gone_is_no_fault_of_a_file(tmp_path: Path) -> None:
    """It ends the last step, which goes on when the bench is back; a reason would stay for good."""
    store, bench = stored(tmp_path, [searched("a", 0.5, 0.2), searched("b", 0.6, 0.4)]), Bench({"a": 0.2, "b": 0.4}, 0)

    def gone(record: Record) -> Latency:
        raise UnansweredError("bench:onnxruntime-cpu gave no answer")

    with pytest.raises(UnansweredError):
        measure_again(study(), store, Finals(tmp_path), gone, no_accuracy)
    assert Finals(tmp_path).all == []
    measure_again(study(), store, Finals(tmp_path), bench, no_accuracy)
    assert bench.calls == {"a": 2, "b": 2}


def test_accuracies_without_resamples_are_measured_again(tmp_path: Path) -> None:
    old = make_record(Recipe(image_size=64), accuracy=0.5, latency=0.5, record_id="old")
    store = stored(tmp_path, [old, searched("new", 0.6, 0.6)])
    asked: list[tuple[str, str]] = []

    def validate(record: Record, split: str) -> Accuracy:
        asked.append((record.id, split))
        assert record.measurement is not None and record.measurement.accuracy is not None
        return replace(record.measurement.accuracy, resampled=packed(np.full(RESAMPLES, 0.5)), low=0.4, high=0.6)

    for _ in range(2):
        measure_again(study(), store, Finals(tmp_path), Bench({"old": 0.5, "new": 0.6}, 0.001), validate)
    assert asked == [("old", "val")]
    assert summary(study(), store, tmp_path)["front"][0]["accuracy_ci"] == [0.4, 0.6]


def test_the_baseline_and_the_members_see_the_test_split_once(tmp_path: Path) -> None:
    store = stored(tmp_path, [searched("a", 0.5, 0.2), searched("off", 0.4, 0.3)])
    asked: list[tuple[str, str]] = []

    def validate(record: Record, split: str) -> Accuracy:
        asked.append((record.id, split))
        assert record.measurement is not None and record.measurement.accuracy is not None
        return replace(record.measurement.accuracy, split=split, map50=0.123)

    for _ in range(2):
        measure_test(study(), store, Finals(tmp_path), validate)
    assert asked == [("baseline", "test"), ("a", "test")]
    result = summary(study(), store, tmp_path)
    assert [member["test"]["map50"] for member in [result["baseline"], *result["front"]]] == [0.123, 0.123]
    assert result["front"][0]["map50"] == 0.5  # validation stays what it was


def test_a_torn_line_is_not_read_and_cut_off(tmp_path: Path) -> None:
    finals = Finals(tmp_path)
    finals.append(Final(record_id="a", latency=timed(0.5, 0.01)))
    path = tmp_path / "final.jsonl"
    path.write_text(path.read_text() + '{"record_id": "b", "la')
    again = Finals(tmp_path)
    assert [final.record_id for final in again.all] == ["a"]
    again.append(Final(record_id="c", reason="no"))
    assert [final.record_id for final in Finals(tmp_path).all] == ["a", "c"]
    assert Finals(tmp_path).all[0].latency == timed(0.5, 0.01)


def test_pooling_weighs_by_the_inverse_variance() -> None:
    one, other = timed(0.400, 0.01), timed(0.404, 0.02)
    found = pooled([one, other])
    logs, weights = np.log([0.400, 0.404]), 1 / np.array([0.01, 0.02]) ** 2
    assert math.log(found.ratio) == pytest.approx((logs * weights).sum() / weights.sum())
    assert math.log(found.ratio_high / found.ratio_low) / 2 == pytest.approx(weights.sum() ** -0.5)
    assert found.runs == one.runs + other.runs
    assert pooled([one]) == one


def test_measurements_that_contradict_one_another_widen_the_interval() -> None:
    """The intervals say a percent, the measurements differ by ten: the pooled interval has to reach both."""
    found = pooled([timed(0.40, 0.01), timed(0.44, 0.01)])
    assert found.ratio_low < 0.405 and found.ratio_high > 0.435


def test_disturbed_measurements_count_where_there_are_no_others() -> None:
    first, second, third = timed(0.40, 0.01), timed(0.44, 0.01), timed(0.45, 0.01)
    assert pooled([first, replace(second, disturbed=True)]) == first
    alone = pooled([replace(second, disturbed=True), replace(third, disturbed=True)])
    assert alone.disturbed
    assert 0.44 < alone.ratio < 0.45


def test_measurements_of_two_machines_are_not_pooled() -> None:
    other, first, last = (replace(timed(0.4, 0.01), host=host) for host in ("old", "new", "new"))
    assert pooled([other, replace(first, ratio=0.2), replace(last, ratio=0.2)]).ratio == pytest.approx(0.2)


def test_pooled_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        found = pooled([timed(0.5 * math.exp(rng.normal(0, 0.01)), 1.96 * 0.01) for _ in range(3)])
        inside += found.ratio_low <= 0.5 <= found.ratio_high
    assert 0.93 < inside / 1000 <= 1


def test_what_is_reported_in_the_end_does_not_flatter(tmp_path: Path) -> None:
    """The front of noisy ratios is 1.4 % too fast, on average over many studies; measured again, by less than .1 %.

    Something is left: the final figures choose among the near ties once more.
    """
    rng = np.random.default_rng(0)
    before: list[float] = []
    after: list[float] = []
    config = study()
    for number in range(60):
        accuracy = rng.uniform(0.5, 0.6, 25)
        ratios = np.exp(rng.normal(math.log(0.4), 0.05, 25))  # as close as after a long search
        truth = {f"r{n}": float(ratio) for n, ratio in enumerate(ratios)}
        folder = tmp_path / str(number)
        folder.mkdir()
        records = [
            searched(f"r{n}", float(accuracy[n]), float(ratios[n] * math.exp(rng.normal(0, 0.03))), 1.96 * 0.03)
            for n in range(25)
        ]
        store = stored(folder, records)
        before += [math.log(own.measurement.latency.ratio / truth[own.id]) for own in front_records(config, store)
                   if own.measurement]  # fmt: skip
        measure_again(config, store, Finals(folder), Bench(truth, 0.01, seed=number), no_accuracy)
        applied = Finals(folder).applied(store)
        after += [math.log(own.measurement.latency.ratio / truth[own.id]) for own in front_records(config, applied)
                  if own.measurement]  # fmt: skip
    assert np.mean(before) < -0.01
    assert abs(np.mean(after)) < 0.001


def test_more_runs_make_the_interval_narrower_by_their_root() -> None:
    target = patient(Target(runs=100, precision=0.01, seconds=30), FinalSettings(factor=4))
    assert (target.runs, target.precision, target.seconds) == (400, 0.005, 120)


def test_overlap_is_stricter_than_a_difference() -> None:
    value, needed = latency_differences([timed(0.4, 0.02)], [timed(0.41, 0.03)])
    assert value.item() == pytest.approx(math.log(0.4 / 0.41))
    assert needed.item() == pytest.approx(0.05)
