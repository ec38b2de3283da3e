"""Where graphs are cut, and that the parts are the whole, on graphs that were made node by node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from search.errors import UserError
from search.split.cost import node_seconds, whole_tensors
from search.split.cut import split_model
from search.split.line import find_places, load_model
from tests.qdq import Net, early_output, inputs, quantized
from tests.tiny import one_thread


def run(path: Path, feed: dict[str, Any]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), one_thread(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    taken = {item.name: feed[item.name] for item in session.get_inputs()}
    return dict(zip(names, map(np.asarray, session.run(names, taken)), strict=True))


def chain(folder: Path, feed: dict[str, Any]) -> dict[str, np.ndarray]:
    """The outputs of the stages of a folder, each of which sees only what ``split.json`` hands on to it."""
    about = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    for stage, handed in zip(about["stages"], about["borders"][1:], strict=True):
        made = feed | run(folder / stage["file"], feed)
        feed = {item["name"]: made[item["name"]] for item in handed}
        assert {name: (list(value.shape), value.dtype.name) for name, value in feed.items()} == {
            item["name"]: (item["shape"], item["dtype"]) for item in handed
        }
    return feed


@pytest.fixture
def deep() -> Net:
    """Seven convolutions, a skip over three of them."""
    net = Net().float_conv("c0").node("Relu")
    skip = net.last
    for index in range(1, 4):
        net.float_conv(f"c{index}").node("Relu")
    net.node("Add", skip)
    for index in range(4, 7):
        net.float_conv(f"c{index}").node("Relu")
    return net


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("precision", ["float", "int8"])
def test_the_stages_in_turn_answer_bit_by_bit_as_the_whole(
    deep: Net, stages: int, precision: str, tmp_path: Path
) -> None:
    path = deep.save(tmp_path / "float.onnx")
    if precision == "int8":
        path = quantized(path, tmp_path / "int8.onnx")
    about = split_model(path, stages, tmp_path / "stages")
    assert len(about["stages"]) == stages and about["difference"] == 0
    for image in inputs():
        [whole], [parts] = run(path, {"x": image}).values(), chain(tmp_path / "stages", {"x": image}).values()
        np.testing.assert_array_equal(parts, whole)


def test_int8_is_cut_at_bytes_and_loses_no_integer_kernel(deep: Net, tmp_path: Path) -> None:
    path = quantized(deep.save(tmp_path / "float.onnx"), tmp_path / "int8.onnx")
    about = split_model(path, 4, tmp_path / "stages")
    assert {item["dtype"] for border in about["borders"][1:-1] for item in border} == {"uint8"}
    session_of = [tmp_path / "stages" / stage["file"] for stage in about["stages"]]
    kernels = [kind for path in session_of for kind in kinds(path)]
    assert sorted(kernels) == sorted(kinds(path)) and kernels.count("QLinearConv") == 7


def kinds(path: Path) -> list[str]:
    """The operators of the graph as ONNX Runtime optimised it, that compute."""
    options = one_thread()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    target = path.with_suffix(".optimised")
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(str(target)).graph.node
    return [node.op_type for node in nodes if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_at_each_place_the_crossing_tensors_are_all_that_the_rest_needs(
    deep: Net, precision: str, tmp_path: Path
) -> None:
    path = deep.save(tmp_path / "float.onnx")
    path = quantized(path, tmp_path / "int8.onnx") if precision == "int8" else path
    model = load_model(path)
    places = find_places(model, whole_tensors(model))
    assert len(places) >= 6 and max(len(place.tensors) for place in places) == 2, "beside the skip too"
    for place in places:
        cut = {tensor.name for tensor in place.tensors}
        output = model.graph.output[0].name
        assert output not in reachable(model.graph, {"x"}, cut), "a way around the cut"
        assert all(output in reachable(model.graph, {name}, cut) for name in cut), "one is handed on in vain"


def reachable(graph: onnx.GraphProto, start: set[str], walls: set[str]) -> set[str]:
    found = set(start)
    for node in graph.node:
        if found & set(node.input):
            found |= set(node.output) - walls
    return found


def test_no_fusion_is_cut_apart(tmp_path: Path) -> None:
    """Convolution and ReLU become one kernel, so no cut is between them."""
    net = Net()
    for index in range(3):
        net.float_conv(f"c{index}").node("Relu")
    model = load_model(net.save(tmp_path / "model.onnx"))
    places = find_places(model, whole_tensors(model))
    assert [model.graph.node[place.after].op_type for place in places] == ["Relu", "Relu"]


def test_a_weight_of_both_sides_is_in_both(tmp_path: Path) -> None:
    net = Net().float_conv("c0").node("Relu")
    weight = net.nodes[0].input[1]
    net.conv("c1", weight).node("Relu").conv("c2", weight)
    path = net.save(tmp_path / "model.onnx")
    split_model(path, 3, tmp_path / "stages")
    for number in (1, 2, 3):
        stored = onnx.load(tmp_path / "stages" / f"stage{number}.onnx").graph.initializer
        assert [tensor.name for tensor in stored] == [weight]


def test_what_an_early_stage_makes_reaches_the_end(tmp_path: Path) -> None:
    path = early_output(tmp_path / "model.onnx")
    split_model(path, 3, tmp_path / "stages")
    whole, parts = run(path, {"x": inputs(1)[0]}), chain(tmp_path / "stages", {"x": inputs(1)[0]})
    assert set(parts) == set(whole) and len(parts) == 2
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


def test_an_open_batch_is_one_picture(tmp_path: Path) -> None:
    model = Net().float_conv("c0").node("Relu").float_conv("c1").model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "model.onnx")
    about = split_model(tmp_path / "model.onnx", 2, tmp_path / "stages")
    assert [border[0]["shape"][0] for border in about["borders"]] == [1, 1, 1]


def test_the_dear_half_is_a_stage_of_its_own(tmp_path: Path) -> None:
    """Ten sigmoids, the last of which is of a tensor a hundred times as large."""
    nodes = [helper.make_node("Softmax", ["x" if index == 0 else f"t{index - 1}"], [f"t{index}"]) for index in range(9)]
    nodes += [helper.make_node("Expand", ["t8", "shape"], ["wide"]), helper.make_node("Softmax", ["wide"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [400, 4000])],
        [numpy_helper.from_array(np.array([400, 1]), "shape")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    model = load_model(path)
    seconds = node_seconds(model, {"x": np.ones((1, 4000), np.float32)}, runs=5)
    assert seconds.argmax() == 10 and seconds[:9].sum() < seconds[10]
    assert [stage["share"] > 0.5 for stage in split_model(path, 2, tmp_path / "stages")["stages"]] == [False, True]


def test_what_cannot_be_split_is_said(deep: Net, tmp_path: Path) -> None:
    path = deep.save(tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"places to cut, which make 1 to \d+ stages, not 99"):
        split_model(path, 99, tmp_path / "stages")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"], "something is left"
    with pytest.raises(UserError, match="3 devices were given for 2 stages"):
        split_model(path, 2, tmp_path / "stages", devices=("cpu:0", "cpu:1", "cpu:0"))
    with pytest.raises(UserError, match="'gpu:1' is no device"):
        split_model(path, 2, tmp_path / "stages", devices=("cpu:0", "gpu:1"))
    with pytest.raises(UserError, match="no ONNX file"):
        split_model(tmp_path / "other.onnx", 2, tmp_path / "stages")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(UserError, match="no ONNX model"):
        split_model(tmp_path / "text.onnx", 2, tmp_path / "stages")
    with pytest.raises(UserError, match="exists"):
        split_model(path, 2, tmp_path)
