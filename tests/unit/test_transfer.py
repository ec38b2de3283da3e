"""Rows of what was taken to other targets: when they are set against the main target, how they are kept and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from search.environments import ROOT_VARIABLE, python_of
from search.measure.apart import Apart
from search.measure.worker import environment_of
from search.stages.export import export_onnx
from search.target import Target, load_target
from search.transfer import Row, table, to_main, why_not_beside, write_row
from spaces.recipe import Export
from tests.studies import tables
from tests.tiny import SIZE, tiny_model
from tests.unit.test_environments import wheel

ONNX, LITERT = load_target("onnxruntime-cpu"), load_target("litert-cpu")
ROW = Row(
    target="board",
    model="baseline",
    record_id=None,
    accuracy=0.5,
    latency_ratio=0.5,
    latency_ratio_ci=(0.4, 0.6),
    latency_ms_p50=8.0,
    latency_batch=1,
    size_bytes=2_000_000,
)


def changed(target: Target, **changes: object) -> Target:
    return target.model_copy(update=changes)


@pytest.mark.parametrize(
    ("main", "target", "why"),
    [
        (ONNX, ONNX, ""),
        (ONNX, load_target("ncnn-cpu"), ""),
        (LITERT, changed(LITERT, name="other"), ""),
        (changed(ONNX, batch=4), ONNX, ""),  # the picture of the target counts
        (LITERT, ONNX, "it needs ai-edge-litert==2.3.0, which onnxruntime-cpu does not have beside it"),
        (LITERT, load_target("onnxruntime-openvino"), "it needs ai-edge-litert==2.3.0"),
        (changed(ONNX, threads=4), ONNX, "threads are 4 there, 1 on onnxruntime-cpu"),
        (changed(ONNX, threads=4), changed(ONNX, threads=4), ""),
        (load_target("onnxruntime-cuda"), ONNX, "it computes on a GPU, onnxruntime-cpu on a CPU"),
        (load_target("torchscript-cpu"), changed(ONNX, batch=2), "it takes one picture at a time, not 2"),
    ],
)
def test_only_what_can_be_timed_side_by_side_is_set_against_the_main_target(
    main: Target, target: Target, why: str
) -> None:
    told = why_not_beside(main, target)
    assert told.startswith(why) and bool(told) == bool(why)


def test_another_version_of_the_main_runtime_is_no_stand_in_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "environments"))
    needs = (wheel(tmp_path, "onnxruntime_openvino", "1.24.1"),)  # the module onnxruntime, as another package ships it
    target = changed(ONNX, name="other", environment=needs)
    python_of(environment_of(needs))
    assert why_not_beside(ONNX, target) == "beside other it would be run by onnxruntime-openvino 1.24.1"
    assert why_not_beside(load_target("ncnn-cpu"), target) == ""  # the project's ncnn, in there too


def test_a_main_baseline_that_does_not_run_costs_its_own_ratio_alone(tmp_path: Path) -> None:
    file = export_onnx(tiny_model(), Export(), image_size=SIZE, path=tmp_path / "model.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    target = changed(ONNX, runs=10)
    with Apart(target) as apart:
        found = to_main(file, file, target, ONNX, apart)
        lost = to_main(file, broken, target, ONNX, apart)
    assert found["ratio_to_main_ci"][0] <= found["ratio_to_main"] <= found["ratio_to_main_ci"][1]
    assert lost.keys() == {"reason"} and "not set against onnxruntime-cpu: " in lost["reason"]
    assert str(broken) in lost["reason"]


def test_rows_of_another_call_stay_and_one_that_is_measured_again_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "transfer.json"
    again = replace(ROW, latency_ms_p50=9.0)
    for row in (ROW, replace(ROW, model="fastest"), replace(ROW, target="phone"), again):
        write_row(path, "study", row)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["study"] == "study"
    assert [(row["target"], row["model"], row["latency_ms_p50"]) for row in found["rows"]] == [
        ("board", "baseline", 9.0),
        ("board", "fastest", 8.0),
        ("phone", "baseline", 8.0),
    ]


def test_what_cannot_be_compared_with_the_main_target_is_left_open_and_said_once() -> None:
    open_ = replace(ROW, reason="not set against main: threads are 4 there, 1 on board")
    failed = Row(target="board", model="smallest", record_id="a", reason="too large")
    text = table([open_, replace(open_, model="fastest"), failed])
    [[row, _, other]] = tables(text)
    assert (row["latency"], row["to the main target's baseline"], row["ms"]) == ("×0.500 (0.400–0.600)", "–", "8.0")
    assert other["mAP50-95 or top-1"] == "too large"
    assert text.endswith("|\n\nboard: not set against main: threads are 4 there, 1 on board")
