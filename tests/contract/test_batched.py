"""Files rewritten for several pictures, against single runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from search.errors import MeasurementError
from search.measure.batched import rewrite_batch, rewritten
from search.runtimes.session import Runtime
from search.runtimes.table import open_session
from search.stages.export import export_onnx
from spaces.recipe import Export
from tests.lively import lively_model
from tests.tiny import SIZE, noise, onnx_answers
from tests.tiny_classifier import SIDE, tiny_classifier

FLOAT = TensorProto.FLOAT
WEIGHT = np.random.default_rng(0).standard_normal((1, 4, 3)).astype(np.float32)


def save(path: Path, nodes: list[Any], constants: dict[str, Any], *, batch: Any = 1) -> Path:
    """A graph from x, (batch, 4, 6), to y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, [batch, 4, 6])],
        [helper.make_tensor_value_info("y", FLOAT, [batch, None, None])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def run(path: Path, array: Any) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": array})[0]


def test_reshapes_of_data_take_the_batch_and_those_of_weights_do_not(tmp_path: Path) -> None:
    node = helper.make_node
    shape = numpy_helper.from_array(np.array([1, 4, 6], dtype=np.int64))
    source = save(
        tmp_path / "one.onnx",
        [
            node("Reshape", ["x", "flat"], ["a"]),
            node("Constant", [], ["back"], value=shape),
            node("Reshape", ["a", "back"], ["b"]),
            node("Reshape", ["w", "flat"], ["c"]),  # the shape that data has too, for a weight
            node("Reshape", ["c", "square"], ["d"]),
            node("MatMul", ["d", "b"], ["y"]),
        ],
        {"flat": np.array([1, -1]), "square": np.array([1, 3, 4]), "w": WEIGHT},
    )
    rewrite_batch(source, tmp_path / "three.onnx", 3)
    pictures = np.random.default_rng(1).random((3, 4, 6), dtype=np.float32)
    expected = np.matmul(WEIGHT.reshape(3, 4), pictures)
    np.testing.assert_allclose(run(tmp_path / "three.onnx", pictures), expected, rtol=1e-5)
    content = onnx.load(tmp_path / "three.onnx")
    onnx.checker.check_model(content, full_check=True)
    ends = (*content.graph.input, *content.graph.output)
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in ends] == [3, 3]


@pytest.mark.parametrize("fast_dfl", [False, True])
def test_a_detector_answers_each_picture_as_alone(fast_dfl: bool, tmp_path: Path) -> None:
    source = export_onnx(lively_model(), Export(fast_dfl=fast_dfl), image_size=SIZE, path=tmp_path / "one.onnx")
    rewrite_batch(source, tmp_path / "five.onnx", 5)
    pictures = noise(5)
    [together] = open_session(tmp_path / "five.onnx", Runtime()).run([np.concatenate(pictures)])
    alone = onnx_answers(source, pictures)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-3)
    assert np.abs(alone[1:] - alone[:-1]).mean(axis=2).min() > 0.02  # each row tells pictures apart
    assert onnx.load(source).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_a_classifier_answers_each_picture_as_alone(tmp_path: Path) -> None:
    source = export_onnx(tiny_classifier(), Export(), image_size=SIDE, path=tmp_path / "one.onnx")
    rewrite_batch(source, tmp_path / "five.onnx", 5)
    pictures = noise(5, size=SIDE)
    [together] = open_session(tmp_path / "five.onnx", Runtime()).run([np.concatenate(pictures)])
    np.testing.assert_allclose(together, onnx_answers(source, pictures), rtol=1e-4, atol=1e-6)


def test_an_open_batch_is_fixed(tmp_path: Path) -> None:
    source = save(tmp_path / "open.onnx", [helper.make_node("Neg", ["x"], ["y"])], {}, batch="n")
    rewrite_batch(source, tmp_path / "two.onnx", 2)
    assert open_session(tmp_path / "two.onnx", Runtime()).inputs[0].shape == (2, 4, 6)


def test_what_cannot_be_rewritten_is_said(tmp_path: Path) -> None:
    node = helper.make_node
    computed = save(
        tmp_path / "computed.onnx", [node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["y"], name="back")], {}
    )
    pair = save(tmp_path / "pair.onnx", [node("Neg", ["x"], ["y"])], {}, batch=2)
    with pytest.raises(MeasurementError, match=r"computed\.onnx computes the shape of a reshape, 'back'"):
        rewrite_batch(computed, tmp_path / "out.onnx", 4)
    with pytest.raises(MeasurementError, match=r"no ONNX file at .*absent\.onnx; export the model first"):
        rewrite_batch(tmp_path / "absent.onnx", tmp_path / "out.onnx", 4)
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(MeasurementError, match=r"broken\.onnx is no ONNX file \(.*\); export the model again"):
        rewrite_batch(tmp_path / "broken.onnx", tmp_path / "out.onnx", 4)
    assert "'x' of" in rewritten((pair, computed), tmp_path, 4, "onnx")
    assert "a tflite file is for the batch" in rewritten((pair, pair), tmp_path, 4, "tflite")
