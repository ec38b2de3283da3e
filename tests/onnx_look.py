"""Looks into ONNX files: what is stored, what is left after ONNX Runtime's optimisation, how far answers are off."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from tests.tiny import noise, one_thread, onnx_answers

LAST = [f"/model.22/cv{branch}.{level}/cv{branch}.{level}.2/Conv" for level in range(3) for branch in (2, 3)]
FIRST = "/model.0/conv/Conv"
CONVS = 63  # of a YOLOv8n, without the decode step


def stored(path: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}


def array(tensor: onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(tensor)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def optimised(path: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs, after every optimisation."""
    with tempfile.TemporaryDirectory() as folder:
        options = one_thread()
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return operators(Path(options.optimized_model_filepath))


def error(path: Path, truth: Path, *, count: int = 4) -> float:
    """How far the answers are off, in units of how far they differ from picture to picture."""
    found, expected = onnx_answers(path, noise(count)), onnx_answers(truth, noise(count))
    spread = expected.std(0).mean(1)  # of each row: box sides and scores
    return float((np.sqrt(((found - expected) ** 2).mean((0, 2))) / spread).mean())


def conv_weights(path: Path) -> dict[str, np.ndarray]:
    """The weights of a float file's convolutions by the convolution's name."""
    tensors = stored(path)
    return {n.name: array(tensors[n.input[1]]) for n in onnx.load(path).graph.node if n.op_type == "Conv"}


def with_weights(source: Path, weights: dict[str, np.ndarray], path: Path) -> Path:
    """A float file with other weights in some of its convolutions, by the convolution's name."""
    model = onnx.load(source)
    names = {node.input[1]: node.name for node in model.graph.node if node.op_type == "Conv"}
    for tensor in model.graph.initializer:
        if names.get(tensor.name) in weights:
            value = weights[names[tensor.name]].astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, path)
    return path
