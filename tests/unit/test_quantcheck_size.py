"""Bytes that should not be there, hosts and latencies, records of a study, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

from search.__main__ import app
from search.quantcheck.device import host_findings, latency_findings
from search.quantcheck.member import findings_of_member
from search.quantcheck.size import is_quantized, size_findings
from search.record import Record
from search.report.quantization import quantization_section
from search.results import summary
from search.stages.compact import compact
from search.store import Store
from search.study import StudyConfig
from spaces.recipe import ChannelPrune, Finetune, Fp32, Int8Static, Recipe
from tests.fakes import make_baseline, make_record
from tests.qdq import CHANNELS, Net

U8 = np.uint8(128)
WEIGHTS = CHANNELS * CHANNELS * 9  # of one convolution


def int8_net() -> Net:
    return Net().pair(U8).conv("one").pair(U8).conv("two").pair(U8)


def test_floats_that_stayed_are_counted_to_the_byte(tmp_path: Path) -> None:
    file = Net().pair(U8).conv("one").pair(U8).float_conv("two").save(tmp_path / "model.onnx")
    [finding] = [finding for finding in size_findings(file) if finding.code == "float_weights"]
    assert finding.layers == ("two",)
    assert finding.numbers == {"bytes": 4 * WEIGHTS, "share": 4 * WEIGHTS / file.stat().st_size}


def test_weights_that_a_trained_quantizer_left_in_float_are_found_behind_their_rounding(tmp_path: Path) -> None:
    net = Net().pair(U8)
    name = net.store("weight", np.ones((CHANNELS, CHANNELS, 3, 3), np.float32))
    ends = (net.store("weight_scale", np.float32(0.01)), net.store("weight_zero", np.int8(0)))
    net.nodes.append(helper.make_node("QuantizeLinear", [name, *ends], ["codes"], name="codes"))
    net.nodes.append(helper.make_node("DequantizeLinear", ["codes", *ends], ["rounded"], name="rounded"))
    file = net.conv("one", "rounded").pair(U8).save(tmp_path / "model.onnx")
    [finding] = [finding for finding in size_findings(file) if finding.code == "float_weights"]
    assert finding.layers == ("one",) and finding.numbers["bytes"] == 4 * WEIGHTS


def test_what_is_stored_twice_goes_with_compact(tmp_path: Path) -> None:
    net = int8_net()
    codes = next(tensor for tensor in net.stored if tensor.name == "one_codes")
    for tensor in net.stored:
        if tensor.name == "two_codes":
            tensor.CopyFrom(codes)
            tensor.name = "two_codes"
    file = net.save(tmp_path / "model.onnx")
    [finding] = [finding for finding in size_findings(file) if finding.code == "not_compact"]
    onnx.save(compact(onnx.load(file)), tmp_path / "small.onnx")
    assert finding.numbers["bytes"] == file.stat().st_size - (tmp_path / "small.onnx").stat().st_size
    assert WEIGHTS < finding.numbers["duplicates"] < WEIGHTS + 200  # and scales of a few bytes
    assert not [finding for finding in size_findings(tmp_path / "small.onnx") if finding.code == "not_compact"]


def test_scales_that_outweigh_their_layers_are_told(tmp_path: Path) -> None:
    net = Net().pair(U8)
    codes = net.store("codes", np.ones((512, CHANNELS, 1, 1), np.int8))
    scales = net.store("scales", np.full(512, 0.01, np.float32))
    net.nodes.append(helper.make_node("DequantizeLinear", [codes, scales], ["weight"], name="weight", axis=0))
    net.node("Conv", "weight", name="one").pair(U8)
    [finding] = [f for f in size_findings(net.save(tmp_path / "model.onnx")) if f.code == "large_scales"]
    assert 512 * 4 <= finding.numbers["bytes"] < 512 * 4 + 50


def test_a_file_that_grew_says_so(tmp_path: Path) -> None:
    file, other = int8_net().save(tmp_path / "model.onnx"), tmp_path / "float.onnx"
    size = file.stat().st_size
    for ratio, words in ((1.25, "grew to 1.25 times"), (0.6, "is still 60% of"), (0.3, None)):
        other.write_bytes(b"0" * round(size / ratio))
        found = [finding.text for finding in size_findings(file, other) if finding.code == "hardly_smaller"]
        assert len(found) == (words is not None) and all(words in text for text in found if words)


def test_a_float_file_is_not_quantized_and_packed_weights_are() -> None:
    assert not is_quantized(Net().float_conv("one").model())
    assert is_quantized(int8_net().model())
    net = Net().float_conv("one")
    net.store("packed", np.zeros(4, np.int8))
    assert is_quantized(net.model())


@pytest.mark.parametrize(
    ("instructions", "layers", "told"),
    [(("avx2",), 3, True), (("avx2", "avx512_vnni"), 3, False), (("avx2",), 0, False), ((), 3, False)],
)
def test_a_host_without_the_instructions_is_told(instructions: tuple[str, ...], layers: int, told: bool) -> None:
    found = host_findings(instructions, integer_layers=layers)
    assert [finding.code for finding in found] == ["no_int8_instructions"] * told
    assert all("saturate" in finding.text and "reduce_range" in finding.advice for finding in found)


def test_only_a_latency_that_is_surely_longer_is_told() -> None:
    assert latency_findings(1.02, 0.99) == []
    [finding] = latency_findings(1.5, 1.4)
    assert "1.50 times" in finding.text


# --- records of a study


def leaves(*, accuracy: float, latency: float = 0.4) -> tuple[Record, Record]:
    """A float and an int8 record of one trunk: accuracy .6 and latency .5 in float."""
    trunk = Recipe(image_size=64, prune=ChannelPrune(ratio=0.3), finetune=Finetune(epochs=3))
    exact = make_record(trunk.model_copy(update={"quantize": Fp32()}), accuracy=0.6, latency=0.5, size=0.8)
    part = {"quantize": Int8Static()}
    return exact, make_record(trunk.model_copy(update=part), accuracy=accuracy, latency=latency, size=0.2)


def put_files(folder: Path, exact: Record, rounded: Record) -> None:
    for record, net in ((exact, Net().float_conv("one")), (rounded, int8_net())):
        assert record.artifact
        path = folder / record.artifact.path
        path.parent.mkdir(parents=True)
        net.save(path)


def test_a_collapse_is_a_drop_from_the_float_leaf_of_the_same_trunk(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.1)
    [finding] = findings_of_member(tmp_path, rounded, [make_baseline(), exact, rounded])
    assert finding.code == "collapse" and finding.numbers == {"accuracy": 0.1, "accuracy_float": 0.6}
    assert rounded.artifact and exact.artifact
    files = (tmp_path / rounded.artifact.path, tmp_path / exact.artifact.path)
    assert f"python -m search int8 {files[0]} --float {files[1]} --data" in finding.advice
    assert findings_of_member(tmp_path, rounded, [make_baseline(), rounded]) == []  # another trunk's accuracy
    assert findings_of_member(tmp_path, exact, [exact, rounded]) == []
    mild = leaves(accuracy=0.56)
    assert findings_of_member(tmp_path, mild[1], mild) == []


def test_a_leaf_that_is_slower_than_its_float_file_on_the_same_host_is_told(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.59, latency=0.6)
    [finding] = findings_of_member(tmp_path, rounded, [exact, rounded])
    assert finding.code == "slower_than_float" and finding.numbers["latency_ratio"] == pytest.approx(1.2)
    assert exact.measurement
    elsewhere = exact.model_copy(update={"measurement": exact.measurement.model_copy(update={"host": "other"})})
    assert findings_of_member(tmp_path, rounded, [elsewhere, rounded]) == []


def test_files_and_host_of_a_study_are_looked_at(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.59)
    put_files(tmp_path, exact, rounded)
    (tmp_path / "host.json").write_text(json.dumps({"instruction_sets": ["avx2"]}))
    Store(tmp_path).append([make_baseline(), exact, rounded])
    codes = {finding.code for finding in findings_of_member(tmp_path, rounded)}
    assert codes == {"no_int8_instructions", "not_compact", "hardly_smaller"}  # a graph of this size is mostly names


def test_the_report_has_findings_of_the_front_and_collapses_anywhere(tmp_path: Path) -> None:
    exact, rounded = leaves(accuracy=0.1, latency=0.55)  # dominated
    store = Store(tmp_path)
    store.append([make_baseline(), exact, rounded])
    config = StudyConfig.model_validate({"name": "a", "model": "m.pt", "data": "d.yaml", "image_size": 64})
    result = summary(config, store, tmp_path)
    assert [member["record_id"] for member in result["front"]] == [exact.id]
    section = quantization_section(store, result, tmp_path)
    assert section.startswith("## Quantization\n\n") and section.count(f"- {rounded.id}: ") == 1
    (tmp_path / "good").mkdir()
    good = Store(tmp_path / "good")
    good.append([make_baseline(), *leaves(accuracy=0.59)])
    assert quantization_section(good, summary(config, good, tmp_path), tmp_path) == ""


# --- the command


def test_the_command_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    net = Net().pair(np.int8(0)).conv("one").pair(np.int8(0)).silu(np.int8(0))
    file = net.save(tmp_path / "model.onnx")
    done = CliRunner().invoke(app, ["int8", str(file)])
    assert done.exit_code == 0
    assert "0 of 1 layers, 0.0% of the multiplications" in done.output
    assert "unfused: 1 quantized layer computed in float" in done.output and "What to do: Quantize" in done.output
    assert "Not looked at: accuracy and latency" in done.output
    done = CliRunner().invoke(app, ["int8", str(file), "--float", str(file), "--json"])
    content = json.loads(done.stdout)
    assert content["layers"] == 1 and content["integer_layers"] == 0
    assert content["findings"][0]["code"] == "unfused" and content["findings"][0]["layers"] == ["one"]


def test_the_command_finds_nothing_wrong_with_a_good_file(tmp_path: Path) -> None:
    file, float_file = tmp_path / "model.onnx", tmp_path / "float.onnx"
    onnx.save(compact(int8_net().model()), file)
    float_file.write_bytes(file.read_bytes())
    done = CliRunner().invoke(app, ["int8", str(file)])
    assert done.exit_code == 0 and "2 of 2 layers, 100.0%" in done.output and "Nothing wrong found." in done.output


def test_what_is_no_quantized_file_is_refused(tmp_path: Path) -> None:
    float_file = Net().float_conv("one").save(tmp_path / "float.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    files = {float_file: "is not quantized", broken: "is no ONNX file", tmp_path / "missing": "there is no ONNX file"}
    for path, words in files.items():
        done = CliRunner().invoke(app, ["int8", str(path)])
        assert done.exit_code == 1 and words in str(done.exception)  # main() makes it exit code 2 and one line
