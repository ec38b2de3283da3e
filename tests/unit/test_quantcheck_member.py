"""What the int8 doctor says about records of a study, from their numbers and, where it can be read, their file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from search.quantcheck.member import findings_of_member
from search.record import Artifact, Record
from search.report.html.page import write_html
from search.report.markdown import write_report
from search.report.quantization import quantization_section
from search.results import summary
from search.store import Store
from search.study import StudyConfig
from search.target import Target, load_target
from spaces.recipe import ChannelPrune, Finetune, Fp16, Fp32, Int8Static, Quantize, Recipe
from tests.fakes import make_baseline, make_record
from tests.qdq import Net

HERE = Target()  # ONNX Runtime on the CPU
U8, SIGNED = np.uint8(128), np.int8(0)
ELSEWHERE = ["openvino-cpu", "onnxruntime-openvino", "onnxruntime-cuda"]  # they read the same files


def leaves(*, accuracy: float, latency: float = 0.4, quantize: Quantize | None = None) -> tuple[Record, Record]:
    """A float and a quantized record of one trunk: accuracy .6 and latency .5 in float."""
    trunk = Recipe(image_size=64, prune=ChannelPrune(ratio=0.3), finetune=Finetune(epochs=3))
    exact = make_record(trunk.model_copy(update={"quantize": Fp32()}), accuracy=0.6, latency=0.5, size=0.8)
    part = {"quantize": quantize or Int8Static()}
    return exact, make_record(trunk.model_copy(update=part), accuracy=accuracy, latency=latency, size=0.2)


def put(folder: Path, record: Record, content: bytes) -> None:
    assert record.artifact
    path = folder / record.artifact.path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def onnx_bytes(net: Net) -> bytes:
    return net.model().SerializeToString()


def in_litert(record: Record, size_bytes: int) -> Record:
    assert record.artifact
    path = record.artifact.path.replace("model.onnx", "model.tflite")
    artifact = Artifact(path=path, format="litert", sha256="0" * 64, size_bytes=size_bytes)
    return record.model_copy(update={"artifact": artifact})


def config_for(target: str = HERE.name) -> StudyConfig:
    return StudyConfig.model_validate(
        {"name": "a", "model": "m.pt", "data": "d.yaml", "image_size": 64, "target": target}
    )


def test_a_collapse_is_a_drop_from_the_float_leaf_of_the_same_trunk(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.1)
    [finding] = findings_of_member(tmp_path, rounded, [make_baseline(), exact, rounded], HERE)
    assert finding.code == "collapse" and finding.numbers == {"accuracy": 0.1, "accuracy_float": 0.6}
    assert f"0.600 for the same weights in float (record {exact.id})" in finding.text
    assert rounded.artifact and exact.artifact
    files = (tmp_path / rounded.artifact.path, tmp_path / exact.artifact.path)
    assert f"python -m search int8 {files[0]} --float {files[1]} --data" in finding.advice
    assert findings_of_member(tmp_path, rounded, [make_baseline(), rounded], HERE) == []  # another trunk's accuracy
    assert findings_of_member(tmp_path, exact, [exact, rounded], HERE) == []
    mild = leaves(accuracy=0.56)
    assert findings_of_member(tmp_path, mild[1], mild, HERE) == []


def test_without_a_float_leaf_it_is_a_drop_from_the_end_of_the_training(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.1)
    unmeasured = exact.model_copy(update={"state": "screened", "artifact": None})
    trained = rounded.model_copy(update={"curve": ((2, 0.7), (3, 0.4))})
    [finding] = findings_of_member(tmp_path, trained, [unmeasured, trained], HERE)
    assert finding.code == "collapse" and finding.numbers == {"accuracy": 0.1, "accuracy_float": 0.4}
    assert "0.400 for the same weights in float (when their training ended)" in finding.text
    assert "recipe.yaml" in finding.advice and "`quantize: {kind: fp32}`" in finding.advice
    for curve in (((2, 0.7),), ((3, 0.14),)):  # of a model that was trained on, and no collapse
        assert findings_of_member(tmp_path, rounded.model_copy(update={"curve": curve}), [unmeasured], HERE) == []
    [finding] = findings_of_member(tmp_path, trained, [exact, trained], HERE)
    assert finding.numbers["accuracy_float"] == 0.6  # of a file, where there is one


def test_a_leaf_that_is_slower_than_its_float_file_on_the_same_host_is_told(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.59, latency=0.6)
    [finding] = findings_of_member(tmp_path, rounded, [exact, rounded], HERE)
    assert finding.code == "slower_than_float" and finding.numbers["latency_ratio"] == pytest.approx(1.2)
    assert exact.measurement
    elsewhere = exact.model_copy(update={"measurement": exact.measurement.model_copy(update={"host": "other"})})
    assert findings_of_member(tmp_path, rounded, [elsewhere, rounded], HERE) == []


def test_files_and_host_of_a_study_are_looked_at(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.59)
    put(tmp_path, rounded, onnx_bytes(Net().pair(U8).conv("one").pair(U8).conv("two").pair(U8)))
    (tmp_path / "host.json").write_text(json.dumps({"instruction_sets": ["avx2"]}))
    found = findings_of_member(tmp_path, rounded, [exact, rounded], HERE)
    assert {finding.code for finding in found} == {"no_int8_instructions", "not_compact"}  # mostly names


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_graph_of_another_runtime_is_not_looked_at(tmp_path: Path, name: str) -> None:
    exact, rounded = leaves(accuracy=0.59)
    signed = Net().pair(SIGNED).conv("one").pair(SIGNED).silu(SIGNED)  # ONNX Runtime's CPU provider does not fuse it
    put(tmp_path, rounded, onnx_bytes(signed))
    (tmp_path / "host.json").write_text(json.dumps({"instruction_sets": ["avx2"]}))
    codes = {
        own.name: {finding.code for finding in findings_of_member(tmp_path, rounded, [exact, rounded], own)}
        for own in (HERE, load_target(name))
    }
    assert codes == {HERE.name: {"unfused", "not_compact"}, name: {"not_compact"}}
    own_version = Target(environment=("onnxruntime==1.20.0",))
    assert {f.code for f in findings_of_member(tmp_path, rounded, [exact, rounded], own_version)} == {"not_compact"}


def test_a_file_that_hardly_shrank_is_told_in_every_format(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.59)
    exact, rounded = in_litert(exact, 1000), in_litert(rounded, 900)
    [finding] = findings_of_member(tmp_path, rounded, [exact, rounded], load_target("litert-cpu"))
    assert finding.code == "hardly_smaller" and finding.numbers["size_ratio"] == 0.9


def test_half_precision_is_no_quantization_that_left_weights_in_float(tmp_path: Path) -> None:
    exact, half = leaves(accuracy=0.1, quantize=Fp16())
    put(tmp_path, half, onnx_bytes(Net().float_conv("one")))
    assert exact.artifact and half.artifact
    half = half.model_copy(update={"artifact": half.artifact.model_copy(update={"size_bytes": 5_000_000})})
    [finding] = findings_of_member(tmp_path, half, [exact, half], HERE)
    assert finding.code == "collapse"


def test_the_report_of_a_study_in_another_format_is_written(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.5)
    exact, rounded = in_litert(exact, 8_000_000), in_litert(rounded, 2_000_000)
    put(tmp_path, rounded, b"TFL3 and no ONNX file")
    store, config = Store(tmp_path), config_for("litert-cpu")
    store.append([in_litert(make_baseline(), 10_000_000), exact, rounded])
    result = summary(config, store, tmp_path)
    assert rounded.id in [member["record_id"] for member in result["front"]]
    write_report(config, store, result, tmp_path)
    write_html(config, store, result, tmp_path, out=tmp_path / "report.html")
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    [line] = [line for line in report.splitlines() if line.startswith(f"- {rounded.id}: Quantization spoils")]
    assert "search int8" not in line  # which reads ONNX files
    assert "Quantization spoils" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_has_findings_of_the_front_and_collapses_anywhere(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.1, latency=0.55)  # dominated
    store, config = Store(tmp_path), config_for()
    store.append([make_baseline(), exact, rounded])
    result = summary(config, store, tmp_path)
    assert [member["record_id"] for member in result["front"]] == [exact.id]
    section = quantization_section(config, store, result, tmp_path)
    assert section.startswith("## Quantization\n\n") and section.count(f"- {rounded.id}: ") == 1
    (tmp_path / "good").mkdir()
    good = Store(tmp_path / "good")
    good.append([make_baseline(), *leaves(accuracy=0.59)])
    assert quantization_section(config, good, summary(config, good, tmp_path), tmp_path) == ""
