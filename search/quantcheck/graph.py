"""An ONNX graph with QuantizeLinear and DequantizeLinear nodes in it, as the float graph that it stands for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

_ort: Any = onnxruntime  # it has no type stubs
PAIR = {"QuantizeLinear", "DequantizeLinear"}
# Operators that multiply and add. What they compute in decides what a model costs.
HEAVY = {"Conv", "ConvTranspose", "Gemm", "MatMul", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}

Tensors = dict[str, np.ndarray]


class Graph:
    """Who makes and who reads each tensor of ``model``; nodes without a name are given one.

    A tensor is *live* if it depends on an input of the model: weights, also packed ones with nodes that unpack them,
    are not. ``nodes`` are the live nodes that are no part of a quantize/dequantize pair, in the order of the graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = [entry.name for entry in model.graph.input if entry.name not in self.stored]
        self.outputs = [entry.name for entry in model.graph.output]
        self.maker: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self.live = set(self.inputs)
        self.nodes: list[onnx.NodeProto] = []
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type} #{index}"
            self._add(node)

    def _add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            self.stored[node.output[0]] = node.attribute[0].t
        self.maker |= {name: node for name in node.output if name}
        for name in node.input:
            self.readers[name].append(node)
        if self.live & set(node.input):
            self.live |= set(node.output)
            if node.op_type not in PAIR:
                self.nodes.append(node)

    def source(self, name: str) -> str:
        """The tensor whose rounded values ``name`` holds: itself, if it is not rounded."""
        while name in self.live and name in self.maker and self.maker[name].op_type in PAIR:
            name = self.maker[name].input[0]
        return name

    def rounded(self, name: str) -> str:
        """``name`` after the first quantize/dequantize pair that reads it: itself, if none does."""
        for quantize in self.readers[name]:
            if quantize.op_type == "QuantizeLinear":
                for dequantize in self.readers[quantize.output[0]]:
                    if dequantize.op_type == "DequantizeLinear":
                        return dequantize.output[0]
        return name

    def heavy(self) -> list[onnx.NodeProto]:
        """The nodes that multiply and add, in the order of the graph."""
        return [node for node in self.nodes if node.op_type in HEAVY]

    def stored_behind(self, node: onnx.NodeProto) -> set[str]:
        """The names of the stored tensors that inputs of ``node`` are made of without any input of the model."""
        found: set[str] = set()
        left = [name for name in node.input if name not in self.live]
        while left:
            name = left.pop()
            if name in self.stored:
                found.add(name)
            elif name in self.maker:
                left += self.maker[name].input
        return found

    def is_rounded(self, name: str) -> bool:
        """Whether ``name``, live or not, comes out of a DequantizeLinear."""
        return name in self.maker and self.maker[name].op_type == "DequantizeLinear"


def run(model: onnx.ModelProto, feed: Mapping[str, np.ndarray], names: Iterable[str]) -> Tensors:
    """The named tensors of ``model`` for one input; see ``Probe``."""
    return Probe(model, names)(feed)


class Probe:
    """Runs a model and gives tensors from inside of it. Nothing is fused, so quantized layers compute in float between
    roundings, as the file says; integer kernels differ from that by a rounding at most, unless they saturate.
    """

    def __init__(self, model: onnx.ModelProto, names: Iterable[str]) -> None:
        self.names = list(dict.fromkeys(names))
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        known = {entry.name for entry in probe.graph.output} | {entry.name for entry in probe.graph.input}
        new = [name for name in self.names if name not in known]
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in new)
        del probe.graph.value_info[:]  # stale shapes of a tensor that is an output now would be believed
        options = _ort.SessionOptions()
        options.graph_optimization_level = _ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = _ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def __call__(self, feed: Mapping[str, np.ndarray]) -> Tensors:
        """The tensors by name, for inputs by name."""
        inputs = {name: value for name, value in feed.items() if name in self.names}
        wanted = [name for name in self.names if name not in inputs]
        return inputs | dict(zip(wanted, map(np.asarray, self._session.run(wanted, dict(feed))), strict=True))
