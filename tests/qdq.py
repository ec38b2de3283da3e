"""Small quantized ONNX graphs, made node by node, so that a test knows what is in them."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tests.tiny import one_thread

CHANNELS, SIDE = 8, 16
MACS = CHANNELS * SIDE * SIDE * CHANNELS * 9  # of a convolution of 3 × 3 that keeps channels and size


class Net:
    """A graph of 3 × 3 convolutions on (1, 8, 16, 16), growing at the tensor ``last``."""

    def __init__(self, *, opset: int = 17) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.last, self.opset = "x", opset
        self.rng = np.random.default_rng(0)

    def store(self, name: str, value: Any) -> str:
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *more: str, name: str = "", **attributes: Any) -> Net:
        """An operator on ``last`` and ``more``."""
        made = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *more], [made], name=name or made, **attributes))
        self.last = made
        return self

    def pair(self, zero: np.generic, *, scale: float = 0.05) -> Net:
        """QuantizeLinear and DequantizeLinear; the type of the zero point is that of the codes."""
        number = len(self.nodes)
        ends = (self.store(f"scale{number}", np.float32(scale)), self.store(f"zero{number}", np.asarray(zero)))
        return self.node("QuantizeLinear", *ends).node("DequantizeLinear", *ends)

    def weight(self, name: str) -> str:
        """A signed 8-bit weight behind a DequantizeLinear."""
        codes = self.rng.integers(-100, 100, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
        inputs = [self.store(f"{name}_codes", codes), self.store(f"{name}_scale", np.float32(0.001))]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_weight"], name=f"{name}_weight"))
        return f"{name}_weight"

    def conv(self, name: str, weight: str | None = None) -> Net:
        return self.node("Conv", weight or self.weight(name), name=name, pads=[1] * 4)

    def float_conv(self, name: str, values: np.ndarray | None = None) -> Net:
        shape = (CHANNELS, CHANNELS, 3, 3)
        values = self.rng.normal(0, 0.15, shape).astype(np.float32) if values is None else values
        return self.conv(name, self.store(f"{name}_weight", values))

    def silu(self, zero: np.generic) -> Net:
        """x * sigmoid(x) with every tensor rounded, as quantizers write it."""
        entry = self.last
        self.node("Sigmoid").pair(zero)
        return self.node("Mul", entry).pair(zero)

    def model(self) -> onnx.ModelProto:
        entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])
        answer = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, ["n", "c", "h", "w"])
        graph = helper.make_graph(self.nodes, "net", [entry], [answer], self.stored)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10 if self.opset > 20 else 8)

    def save(self, path: Path) -> Path:
        model = self.model()
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path


def early_output(path: Path) -> Path:
    """A file of three convolutions, whose second output is made after the first."""
    net = Net().float_conv("c0").node("Sigmoid")
    early = net.last
    model = net.float_conv("c1").node("Sigmoid").float_conv("c2").model()
    model.graph.output.append(helper.make_tensor_value_info(early, TensorProto.FLOAT, ["n", "c", "h", "w"]))
    onnx.save(model, path)
    return path


class _Reader(CalibrationDataReader):
    def __init__(self, images: list[np.ndarray]) -> None:
        self.feeds = iter([{"x": image} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def inputs(count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(0, 1, (1, CHANNELS, SIDE, SIDE)).astype(np.float32) for _ in range(count)]


def quantized(source: Path, path: Path, *, per_channel: bool = False, exclude: tuple[str, ...] = ()) -> Path:
    """By ONNX Runtime's quantizer, calibrated on ``inputs``."""
    quantize_static(
        str(source),
        str(path),
        _Reader(inputs()),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        nodes_to_exclude=list(exclude),
    )
    return path


def answers(path: Path, *, without: tuple[str, ...] = ()) -> np.ndarray:
    """What ONNX Runtime answers to ``inputs``, without some of its optimisations."""
    settings: dict[str, Any] = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": list(without)}
    session = onnxruntime.InferenceSession(str(path), one_thread(), **settings)
    return np.concatenate([np.asarray(session.run(None, {"x": image})[0]) for image in inputs()])


def kernels_run(path: Path) -> Counter[str]:
    """The kernels that ONNX Runtime's own profiler saw run, by operator."""
    options = one_thread()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session.run(None, {"x": inputs(1)[0]})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    names = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
    return Counter(names)
