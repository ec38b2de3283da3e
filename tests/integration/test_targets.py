"""A study of three targets on real runtimes: one training, a front for each, measured again, and picks taken to others.

Two of them run several pictures at once, for which quantization that takes its ranges from a whole run is refused.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from search.final import Finals
from search.measure.accuracy import measure_accuracy
from search.results import open_study
from search.runtimes.session import Runtime
from tests.integration.test_study import SPACE, make_study, search
from tests.shared import made_once
from tests.studies import tables

OTHERS = ["openvino-cpu", "torchscript-cpu"]
BATCH = {"onnxruntime-cpu": 4, "openvino-cpu": 3, "torchscript-cpu": 1}


def run(folder: Path) -> None:
    main, *others = ({"name": name, "runs": 10, "batch": batch} for name, batch in BATCH.items())
    final = {"factor": 1, "records": 1, "rounds": 1}
    study = make_study(folder, target=main, other_targets=others, budget={"trials": 2}, final=final)
    (folder / "space.yaml").write_text(SPACE.replace("{kind: fp32}", "{kind: fp32}, {kind: int8_dynamic}"))
    search("run", study, "--out", folder / "out")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "targets", run) / "out"


@pytest.fixture(scope="module")
def result(finished: Path) -> dict[str, Any]:
    return json.loads(search("front", finished, "--json").stdout)


def test_every_complete_record_is_on_the_targets_that_run_it(finished: Path) -> None:
    _, store = open_study(finished)
    complete = [record for record in store.records.values() if record.state == "complete"]
    assert len(complete) >= 3
    for record in complete:
        assert set(record.elsewhere) == set(OTHERS)
        openvino, script = (record.elsewhere[name] for name in OTHERS)
        assert openvino.artifact == record.artifact  # it reads the same file
        assert openvino.measurement is not None
        assert openvino.measurement.latency.runtime.startswith("openvino ")
        if record.recipe.quantize.kind == "int8":
            assert script.measurement is None
            assert "torchscript-cpu runs fp32, not int8" in script.reason
        else:
            assert script.artifact is not None
            assert script.measurement is not None
            assert (finished / script.artifact.path).stat().st_size == script.artifact.size_bytes


def test_latency_is_of_as_many_pictures_as_the_target_says_everywhere(finished: Path, result: dict[str, Any]) -> None:
    _, store = open_study(finished)
    for record in store.records.values():
        found = {"onnxruntime-cpu": record.measurement}
        found |= {name: own.measurement for name, own in record.elsewhere.items()}
        for name, measured in found.items():
            if measured is not None:
                assert measured.latency.batch == BATCH[name]
                assert measured.latency.fps == pytest.approx(1000 * BATCH[name] / measured.latency.p50_ms)
    for name in BATCH:
        timed = [
            final.latency.batch for final in Finals(finished, name if name in OTHERS else None).all if final.latency
        ]
        assert timed == [BATCH[name]]  # one file on each target, once: so the study says
    rows = json.loads((finished / "contributions.json").read_text(encoding="utf-8"))["measured"]
    assert {row["measurement"]["latency"]["batch"] for row in rows if row["measurement"]} == {4}
    assert {member["latency_batch"] for member in [result["baseline"], *result["front"]]} == {4}
    assert "4 pictures in a run" in (finished / "report.md").read_text(encoding="utf-8")


def test_each_front_is_measured_again_and_on_the_test_split(finished: Path, result: dict[str, Any]) -> None:
    """On its own runtime, with what it reads."""
    _, store = open_study(finished)
    for name in OTHERS:
        own, finals = result["others"][name], Finals(finished, name)
        [again] = [final for final in finals.all if final.latency]
        assert again.latency is not None
        assert again.latency.runtime.split()[0] == name.removesuffix("-cpu").replace("torchscript", "torch")
        searched = store.records[again.record_id].elsewhere[name].measurement
        assert searched is not None
        assert searched.latency != again.latency
        ratios = {member["record_id"]: member["latency_ratio"] for member in own["front"]}
        assert ratios.get(again.record_id, again.latency.ratio) == again.latency.ratio
        members = [own["baseline"], *own["front"]]
        assert [member["test"]["images"] for member in members] == [4] * len(members)
        assert {final.record_id for final in finals.all if final.accuracy} == {m["record_id"] for m in members}
        text = (finished / "report.md").read_text(encoding="utf-8")
        section = text[text.index(f"### {name}") :]
        front, timed, tested = tables(section)[:3]
        assert [row["record"] for row in front] == [*ratios, "baseline"]
        assert [(row["record"], row["again"]) for row in timed] == [(again.record_id, f"×{again.latency.ratio:.3f}")]
        assert [row["record"] for row in tested] == [*ratios, "baseline"]


def test_what_would_mix_pictures_fails_alone(finished: Path) -> None:
    _, store = open_study(finished)
    kinds = [record.recipe.quantize.kind for record in store.searched]
    assert kinds.count("int8_dynamic") == 2
    for record in store.searched:
        if record.recipe.quantize.kind == "int8_dynamic":
            assert record.state == "failed"
            why = "model.onnx, rewritten for 4 pictures: answers at once are not those to each alone"
            assert record.reason.startswith(f"MeasurementError: {why}")
        else:
            assert record.state != "failed"


def test_accuracies_are_those_of_the_files_on_their_runtimes(finished: Path) -> None:
    _, store = open_study(finished)
    [first, *_] = [r for r in store.searched if r.state == "complete" and r.recipe.quantize.kind == "fp32"]
    script = first.elsewhere["torchscript-cpu"]
    assert script.artifact is not None
    assert script.measurement is not None
    again = measure_accuracy(
        finished / script.artifact.path,
        finished / "data" / "data.yaml",
        image_size=first.recipe.image_size,
        runtime=Runtime(name="torchscript"),
    )
    assert script.measurement.accuracy is not None
    assert again.value == pytest.approx(script.measurement.accuracy.value, abs=1e-6)


def test_there_is_a_front_for_each_and_how_far_they_agree(finished: Path, result: dict[str, Any]) -> None:
    assert list(result["others"]) == OTHERS
    assert all(own["front"] for own in result["others"].values())
    pairs = [row["targets"] for row in result["agreement"]]
    assert pairs == [["onnxruntime-cpu", OTHERS[0]], ["onnxruntime-cpu", OTHERS[1]], OTHERS]
    one = json.loads(search("front", finished, "--target", "torchscript-cpu", "--json").stdout)
    assert one["front"] == result["others"]["torchscript-cpu"]["front"]
    assert all(member["artifact"].endswith("model.torchscript") for member in one["front"])
    report = (finished / "report.md").read_text(encoding="utf-8")
    assert "## On other targets" in report
    assert "### openvino-cpu" in report
    refused = search("front", finished, "--target", "phone", check=False)
    assert refused.returncode == 2
    assert "--target phone: " in refused.stderr


def test_picks_are_taken_to_another_target_without_training(finished: Path) -> None:
    two = finished.parent / "two.yaml"
    two.write_text("runtime: onnxruntime\nbatch: 2\nruns: 10\n", encoding="utf-8")
    printed = search(
        "transfer", finished, "--target", "ncnn-cpu", "--target", two, "--pick", "most-accurate", "--json"
    ).stdout
    found = json.loads(printed)
    assert [(row["target"], row["latency_batch"]) for row in found if not row["reason"]] == [
        *2 * [("ncnn-cpu", 1)],
        *3 * [("two", 2)],
    ]
    assert all(row["ratio_to_main"] > 0 for row in found)
    rows = {row["model"]: row for row in found if row["target"] == "ncnn-cpu"}
    assert len(rows) == 2  # ncnn has no 8 bits, so the baseline in 8 bits would be the baseline again
    assert rows["baseline"]["latency_ratio"] == pytest.approx(1, abs=0.5)  # ten runs of a tiny model
    assert rows["baseline"]["ratio_to_main"] > 0
    [pick] = rows.keys() - {"baseline"}
    assert pick.startswith("most-accurate")
    assert rows[pick]["accuracy"] is not None
    assert rows["baseline"]["runtime"].startswith("ncnn ")
    assert json.loads((finished / "transfer.json").read_text())["rows"] == found


def test_a_pick_whose_training_is_gone_has_a_sentence_and_the_others_their_rows(
    finished: Path, result: dict[str, Any], tmp_path: Path
) -> None:
    moved = tmp_path / "out"
    shutil.copytree(finished, moved, ignore=shutil.ignore_patterns("stages"))
    picks = [word for pick in ("recommended", "most-accurate", "fastest", "smallest") for word in ("--pick", pick)]
    done = search("transfer", moved, "--target", "onnxruntime-cpu", *picks, "--json")
    trained = {member["record_id"] for member in result["front"] if member["recipe"]["finetune"]["kind"] == "train"}
    rows = json.loads(done.stdout)
    lost = [row for row in rows if row["record_id"] in trained]
    assert lost and "Traceback" not in done.stderr
    for row in rows:
        assert bool(row["reason"]) == (row in lost)
        if row in lost:
            assert re.match(r"its training, train-\w+, is not in the study's cache: .* from artifacts/", row["reason"])
        else:
            assert row["latency_ratio"] > 0
