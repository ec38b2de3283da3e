"""Bytes that should not be there, hosts and latencies, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

from search.__main__ import app
from search.errors import UserError
from search.quantcheck.device import host_findings, latency_findings
from search.quantcheck.size import is_quantized, shrink_findings, size_findings
from search.stages.compact import compact
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


def test_a_file_that_grew_says_so() -> None:
    for size, words in ((1250, "grew to 1.25 times"), (600, "is still 60% of"), (300, None)):
        found = [finding.text for finding in shrink_findings(size, 1000)]
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
    other = tmp_path / "model.tflite"
    other.write_bytes(b"TFL3 and no ONNX file")
    files = {float_file: "is not quantized", other: "reads ONNX files only", tmp_path / "missing": "no ONNX file at"}
    for path, words in files.items():
        assert words in str(refused("int8", str(path)))


def test_what_is_no_float_file_beside_it_is_refused(tmp_path: Path) -> None:
    file, other = int8_net().save(tmp_path / "model.onnx"), tmp_path / "model.tflite"
    other.write_bytes(b"TFL3 and no ONNX file")
    for path, words in {other: "reads ONNX files only", tmp_path / "missing": "no ONNX file at"}.items():
        assert f"{path}" in (told := str(refused("int8", str(file), "--float", str(path)))) and words in told


def refused(*arguments: str) -> UserError:
    """What the command is refused with; ``main`` makes it exit code 2 and one line."""
    with pytest.raises(UserError) as error:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    return error.value
