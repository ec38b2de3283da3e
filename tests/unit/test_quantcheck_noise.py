"""Where quantization's noise is born: layers that were spoiled on purpose have to be found, and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from search.errors import UserError
from search.quantcheck.collapse import collapse_findings, find_cause
from search.quantcheck.graph import Graph
from search.quantcheck.match import in_float, matched
from search.quantcheck.noise import Share, decibels, layer_noise, output_noise
from search.stages.compact import compact
from search.stages.precision.graph import prepared
from tests.qdq import CHANNELS, Net, answers, inputs, quantized

SHAPE = (CHANNELS, CHANNELS, 3, 3)


def outlier_net() -> Net:
    """Three layers. One channel of the second has huge negative weights, so that a Relu puts it to 0 always."""
    weight = np.random.default_rng(3).normal(0, 0.15, SHAPE).astype(np.float32)
    weight[0] = -2000 * np.abs(weight[0])
    return Net().float_conv("one").node("Relu").float_conv("two", weight).node("Relu").float_conv("three")


def concat_net() -> Net:
    """Boxes of hundreds and scores from 0 to 1, put together at the end as a detector does."""
    net = Net().float_conv("one").node("Relu").float_conv("two")
    features = net.last
    scores = net.node("Sigmoid", name="scores").last
    net.last = features
    boxes = net.node("Mul", net.store("side", np.float32(300.0)), name="boxes").last
    net.nodes.append(helper.make_node("Concat", [boxes, scores], ["answer"], name="together", axis=1))
    net.last = "answer"
    return net


def plain_net() -> Net:
    return Net().float_conv("one").node("Relu").float_conv("two").node("Sigmoid").float_conv("three")


def ratio_db(file: Path, float_file: Path) -> float:
    """The signal-to-noise ratio of answers, by channels, with numpy alone."""
    # ONNX Runtime would round the weights of spared layers (see rounded_at_load).
    found = answers(file, without=("WeightBiasQuantization",)).astype(float)
    expected = answers(float_file).astype(float)
    shares = [((found - expected)[:, c] ** 2).sum() / (expected[:, c] ** 2).sum() for c in range(expected.shape[1])]
    return -10 * np.log10(np.minimum(shares, 1).mean())


def test_the_layer_with_an_outlier_is_named_and_sparing_it_is_the_cure(tmp_path: Path) -> None:
    source = outlier_net().save(tmp_path / "float.onnx")
    bad = quantized(source, tmp_path / "bad.onnx")
    [finding] = collapse_findings(bad, source, inputs())
    assert finding.code == "collapse" and finding.layers == ("two",)
    assert "two: by rounding its weights" in finding.text and "per_channel" in finding.advice
    assert finding.numbers["output_db"] == pytest.approx(ratio_db(bad, source), abs=0.5)
    spared = quantized(source, tmp_path / "spared.onnx", exclude=("two",))
    other = quantized(source, tmp_path / "other.onnx", exclude=("one", "three"))
    assert ratio_db(spared, source) > 20 > 10 > ratio_db(other, source)
    assert finding.numbers["output_db_spared"] == pytest.approx(ratio_db(spared, source), abs=3)


def test_the_advice_is_right_that_one_scale_a_channel_cures_an_outlier(tmp_path: Path) -> None:
    source = outlier_net().save(tmp_path / "float.onnx")
    good = quantized(source, tmp_path / "good.onnx", per_channel=True)
    assert ratio_db(good, source) > 20
    assert collapse_findings(good, source, inputs()) == []


def test_values_of_different_ranges_on_one_scale_are_named(tmp_path: Path) -> None:
    source = concat_net().save(tmp_path / "float.onnx")
    bad = quantized(source, tmp_path / "bad.onnx")
    [finding] = collapse_findings(bad, source, inputs())
    assert finding.layers == ("together",)
    assert "by rounding its output" in finding.text and "after the last layer with weights" in finding.advice
    spared = quantized(source, tmp_path / "spared.onnx", exclude=("together",))
    assert ratio_db(bad, source) < 10 and ratio_db(spared, source) > 20


def test_accuracies_decide_where_they_can_be_measured(tmp_path: Path) -> None:
    source = concat_net().save(tmp_path / "float.onnx")
    bad = quantized(source, tmp_path / "bad.onnx")

    def measure(path: Path) -> float:
        return float(answers(path)[:, CHANNELS:].std())  # of the scores, which are lost

    [finding] = collapse_findings(bad, source, inputs(), measure)
    numbers = finding.numbers
    assert numbers["accuracy_float"] == pytest.approx(measure(source)) and numbers["accuracy"] == measure(bad)
    assert numbers["accuracy_spared"] == pytest.approx(measure(source), abs=0.02)
    assert collapse_findings(bad, source, inputs(), lambda path: 0.5) == []


def test_a_noisy_layer_that_does_no_harm_is_not_named(tmp_path: Path) -> None:
    source = outlier_net().save(tmp_path / "float.onnx")
    bad, exact = Graph(onnx.load(quantized(source, tmp_path / "bad.onnx"))), Graph(prepared(source))
    noise = layer_noise(bad, exact, matched(bad, exact), inputs())
    louder = [replace(layer, own=2.0) if layer.pair.float.name == "one" else layer for layer in noise]
    before = output_noise(bad.model, exact.model, inputs())
    cause = find_cause(bad, exact, louder, before, inputs())
    assert [layer.pair.float.name for layer in cause.layers] == ["two"] and cause.enough


def test_noise_without_a_single_cause_is_told_as_such(tmp_path: Path) -> None:
    source = plain_net().save(tmp_path / "float.onnx")
    bad = onnx.load(quantized(source, tmp_path / "good.onnx"))
    for tensor in bad.graph.initializer:  # weights of one bit: every layer is bad, and so is the last one's own output
        if tensor.name.endswith("weight_quantized"):
            codes = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.where(codes < 0, -40, 40).astype(np.int8), tensor.name))
        if tensor.name.endswith("t4_scale"):
            tensor.CopyFrom(numpy_helper.from_array(8 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(bad, tmp_path / "bad.onnx")
    images = inputs()
    [finding] = collapse_findings(tmp_path / "bad.onnx", source, images)
    assert len(finding.layers) > 1 and {"one", "two", "three"} >= set(finding.layers)


def test_a_good_file_gives_no_finding(tmp_path: Path) -> None:
    source = plain_net().save(tmp_path / "float.onnx")
    good = quantized(source, tmp_path / "good.onnx", per_channel=True)
    assert ratio_db(good, source) > 20
    assert collapse_findings(good, source, inputs()) == []


@pytest.mark.parametrize("net", [outlier_net, concat_net, plain_net])
def test_every_layer_in_float_is_the_float_file_again(net, tmp_path: Path) -> None:
    source = net().save(tmp_path / "float.onnx")
    bad = Graph(onnx.load(quantized(source, tmp_path / "bad.onnx")))
    exact = Graph(prepared(source))
    pairs = matched(bad, exact)
    assert len(pairs) == len(bad.nodes)
    onnx.save(in_float(bad, exact, pairs), tmp_path / "again.onnx")
    assert output_noise(in_float(bad, exact, pairs), exact.model, inputs()) < 1e-12
    np.testing.assert_allclose(answers(tmp_path / "again.onnx"), answers(source), rtol=1e-4, atol=1e-4)


def test_compact_files_are_matched_without_names(tmp_path: Path) -> None:
    source = outlier_net().save(tmp_path / "float.onnx")
    bad = quantized(source, tmp_path / "bad.onnx")
    small, plain = tmp_path / "small.onnx", tmp_path / "plain.onnx"
    onnx.save(compact(onnx.load(bad)), small)
    onnx.save(compact(onnx.load(source)), plain)
    [finding], [same] = collapse_findings(small, plain, inputs()), collapse_findings(bad, source, inputs())
    assert finding.numbers == same.numbers
    convs = [node for node in prepared(plain).graph.node if node.op_type == "Conv"]
    assert same.layers == ("two",) and finding.layers == (convs[1].name,)


def test_noise_is_counted_where_it_is_born_and_not_where_it_is_carried(tmp_path: Path) -> None:
    source = outlier_net().save(tmp_path / "float.onnx")
    bad, exact = Graph(onnx.load(quantized(source, tmp_path / "bad.onnx"))), Graph(prepared(source))
    noise = {layer.pair.float.name: layer for layer in layer_noise(bad, exact, matched(bad, exact), inputs())}
    two, three = noise["two"], noise["three"]
    assert decibels(two.own) < 5 and decibels(two.weights) < 5
    assert decibels(three.carried) < 10 and decibels(three.own) > 25


def test_a_lost_channel_counts_beside_a_loud_one() -> None:
    share = Share()
    expected = np.ones((2, 4, 3), np.float32) * np.array([1e3, 1, 0, 2], np.float32)[:, None]
    found = expected * np.array([1, 0, 1, 1.5], np.float32)[:, None]
    share.add(found, expected)
    assert share.value == pytest.approx((0 + 1 + 0.25) / 3)  # the channel without a signal does not count
    assert decibels(0.01) == pytest.approx(20)


def test_a_float_file_of_another_model_is_refused(tmp_path: Path) -> None:
    bad = quantized(plain_net().save(tmp_path / "float.onnx"), tmp_path / "bad.onnx")
    other = Net().node("Tanh").node("Sigmoid").save(tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"0 of 3 layers are the same"):
        collapse_findings(bad, other, inputs())
