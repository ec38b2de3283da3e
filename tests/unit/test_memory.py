"""The memory of a model, beside the size of its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from search.errors import MeasurementError
from search.measure import memory
from search.measure.memory import peak_memory
from search.runtimes.session import Runtime


def save_matrix(path: Path, columns: int) -> Path:
    """A product with a matrix of 1024 rows: 4096 bytes of weights for each column."""
    weight = np.random.default_rng(0).random((1024, columns), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1024])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, columns])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_weights_take_at_least_their_size(tmp_path: Path) -> None:
    small = peak_memory(save_matrix(tmp_path / "small.onnx", 16), Runtime())
    large = peak_memory(save_matrix(tmp_path / "large.onnx", 16 * 1024), Runtime())
    assert small is not None and large is not None
    weights = 1024 * 16 * 1024 * 4 / 1e6
    assert weights < large - small < 5 * weights
    assert 0 < small < 40  # the interpreter with numpy alone takes more


def test_a_file_that_fails_there_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"absent\.onnx fails in a process of its own.*there is no ONNX file"):
        peak_memory(tmp_path / "absent.onnx", Runtime())


def test_a_system_without_proc_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATUS", tmp_path / "status")
    assert peak_memory(tmp_path / "absent.onnx", Runtime()) is None
