"""Layers that ONNX Runtime left in float: on graphs made by hand, against the profile of what really ran."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from search.quantcheck.fused import look, unfused_findings
from tests.qdq import CHANNELS, MACS, Net, answers, kernels_run

U8, S8 = np.uint8(128), np.int8(0)


def silu_net(zero: np.generic) -> Net:
    return Net().pair(zero).conv("one").pair(zero).silu(zero).conv("two").pair(zero).silu(zero)


def test_a_file_that_is_fused_gives_no_finding(tmp_path: Path) -> None:
    file = silu_net(U8).save(tmp_path / "model.onnx")
    ran = kernels_run(file)
    assert ran["QLinearConv"] == 2 and ran["Conv"] == 0
    seen = look(file)
    assert seen.integer == ("one", "two") and seen.macs == {"one": MACS, "two": MACS}
    assert seen.share(seen.integer) == 1
    assert unfused_findings(seen) == []


def test_signed_activations_are_the_reason_for_what_runs_in_float(tmp_path: Path) -> None:
    file = silu_net(S8).save(tmp_path / "model.onnx")
    ran = kernels_run(file)
    assert ran["QLinearConv"] == 0 and ran["Conv"] == 2
    seen = look(file)
    assert seen.integer == () and seen.unfused == {"signed": ("one", "two")}
    [finding] = unfused_findings(seen)
    assert finding.layers == ("one", "two") and finding.numbers == {"layers": 2, "macs_share": 1}
    assert "signed" in finding.text and "QUInt8" in finding.advice


@pytest.mark.parametrize(("zero", "reason"), [(np.uint8(0), None), (U8, "zero_point Relu")])
def test_a_relu_is_part_of_the_rounding_only_if_that_starts_at_zero(
    zero: np.uint8, reason: str | None, tmp_path: Path
) -> None:
    file = Net().pair(U8).conv("one").node("Relu").pair(zero).save(tmp_path / "model.onnx")
    assert kernels_run(file)["QLinearConv"] == (reason is None)
    assert look(file).unfused == ({} if reason is None else {reason: ("one",)})


def test_an_output_that_is_not_quantized_is_named(tmp_path: Path) -> None:
    file = Net().pair(U8).conv("one").pair(U8).conv("two").node("Tanh").save(tmp_path / "model.onnx")
    ran = kernels_run(file)
    assert ran["QLinearConv"] == 1 and ran["FusedConv"] == 1  # with the Tanh
    seen = look(file)
    assert seen.integer == ("one",) and seen.unfused == {"output Tanh": ("two",)}
    [finding] = unfused_findings(seen)
    assert "before Tanh reads it" in finding.text and finding.numbers["macs_share"] == 0.5


def test_16_bits_have_no_kernel(tmp_path: Path) -> None:
    wide = np.uint16(32768)
    file = Net(opset=21).pair(wide).conv("one").pair(wide).save(tmp_path / "model.onnx")
    assert kernels_run(file)["QLinearConv"] == 0
    [finding] = unfused_findings(look(file))
    assert "16 bits" in finding.text


def test_activations_without_a_kernel_are_counted(tmp_path: Path) -> None:
    net = Net().pair(U8).conv("one").pair(U8).node("HardSigmoid").pair(U8).conv("two").pair(U8)
    file = net.save(tmp_path / "model.onnx")
    ran = kernels_run(file)
    assert ran["HardSigmoid"] == 1 and ran["QLinearConv"] == 2
    [finding] = unfused_findings(look(file))
    assert finding.code == "float_between" and finding.numbers == {"HardSigmoid": 1}


def test_a_relu_between_symmetric_ranges_is_told_apart_from_one_without_a_kernel(tmp_path: Path) -> None:
    file = Net().pair(U8).conv("one").pair(U8).node("Relu").pair(U8).conv("two").pair(U8).save(tmp_path / "model.onnx")
    assert kernels_run(file)["Relu"] == 1
    [finding] = unfused_findings(look(file))
    assert finding.numbers == {"Relu": 1} and "symmetric: false" in finding.advice and "silu" not in finding.advice


def test_layers_that_the_file_has_in_float_are_no_finding(tmp_path: Path) -> None:
    file = Net().pair(U8).conv("one").pair(U8).float_conv("two").save(tmp_path / "model.onnx")
    seen = look(file)
    assert seen.integer == ("one",) and seen.float_by_choice == ("two",)
    assert unfused_findings(seen) == []


def test_float_weights_that_the_runtime_rounds_itself_are_told(tmp_path: Path) -> None:
    net = Net().pair(U8).float_conv("one").node("Relu").pair(np.uint8(0)).float_conv("two").node("Tanh")
    file = net.save(tmp_path / "model.onnx")
    assert kernels_run(file)["QLinearConv"] == 1
    kept = np.abs(answers(file) - answers(file, without=("WeightBiasQuantization",)))
    assert kept.max() > 1e-3
    seen = look(file)
    assert seen.integer == seen.rounded_at_load == ("one",) and seen.float_by_choice == ("two",)
    [finding] = unfused_findings(seen)
    assert finding.code == "rounded_at_load" and finding.layers == ("one",)


def test_nodes_without_names_are_told_apart(tmp_path: Path) -> None:
    net = Net().pair(U8).conv("one").pair(U8).conv("two").node("Tanh")
    for node in net.nodes:
        node.ClearField("name")
    seen = look(net.save(tmp_path / "model.onnx"))
    convs = [f"Conv #{index}" for index, node in enumerate(net.nodes) if node.op_type == "Conv"]
    assert [*seen.integer, *seen.unfused["output Tanh"]] == convs


def test_weights_of_4_bits_that_are_unpacked_at_load_are_no_finding(tmp_path: Path) -> None:
    net = Net(opset=21).pair(U8)
    count = CHANNELS * CHANNELS * 9
    packed = np.random.default_rng(0).integers(0, 256, count // 2).astype(np.uint8).tobytes()
    shape = (CHANNELS, CHANNELS, 3, 3)
    net.stored.append(helper.make_tensor("codes", TensorProto.INT4, shape, packed, raw=True))
    net.nodes.append(helper.make_node("Cast", ["codes"], ["bytes"], to=TensorProto.INT8))
    scale = net.store("scale", np.float32(0.01))
    net.nodes.append(helper.make_node("DequantizeLinear", ["bytes", scale], ["weight"], name="weight"))
    file = net.conv("one", "weight").pair(U8).save(tmp_path / "model.onnx")
    assert kernels_run(file)["QLinearConv"] == 1
    seen = look(file)
    assert seen.integer == ("one",) and seen.macs == {"one": MACS} and unfused_findings(seen) == []
