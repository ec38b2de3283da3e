"""Which node of a quantized file stands for which of its float file, and the file with some of them back in float."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from search.quantcheck.graph import PAIR, Graph

ABSORBED = {"Relu", "Clip"}  # quantizers leave them to the rounding after them, where its range allows


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A node of the quantized graph and the one in the float graph that it was made from.

    ``absorbed`` is an activation after the float node that the rounding of the quantized node's output does.
    """

    quantized: onnx.NodeProto
    float: onnx.NodeProto
    absorbed: onnx.NodeProto | None = None

    def tensors(self) -> dict[str, str]:
        """The float file's tensor for each output of the quantized node, once it is rounded."""
        last = self.absorbed or self.float
        return dict(zip(self.quantized.output, last.output, strict=False))


def matched(quantized: Graph, exact: Graph) -> list[Pair]:
    """The nodes of both graphs that stand for one another, in the order of the quantized graph.

    Both are walked from their outputs to their inputs, by operators and places of inputs and by no names: compact
    files have none.
    """
    pairs: dict[str, Pair] = {}
    left = list(zip(quantized.outputs, exact.outputs, strict=False))
    while left:
        name, other = left.pop()
        name, other, absorbed = quantized.source(name), exact.source(other), None
        one, two = quantized.maker.get(name), exact.maker.get(other)
        if one is not None and two is not None and two.op_type in ABSORBED and one.op_type != two.op_type:
            absorbed, other = two, two.input[0]
            two = exact.maker.get(other)
        if one is None or two is None or name not in quantized.live or one.name in pairs:
            continue
        same = one.op_type == two.op_type and len(one.input) == len(two.input)
        if same and list(one.output).index(name) == list(two.output).index(other):
            pairs[one.name] = Pair(quantized=one, float=two, absorbed=absorbed)
            left += zip(one.input, two.input, strict=True)
    return [pairs[node.name] for node in quantized.nodes if node.name in pairs]


def in_float(quantized: Graph, exact: Graph, pairs: Sequence[Pair]) -> onnx.ModelProto:
    """The quantized model with these layers as in the float file: neither their weights nor their outputs are rounded.

    What they read is, unless it is the model's input or comes from another of them.
    """
    model = onnx.ModelProto()
    model.CopyFrom(quantized.model)
    spared = {pair.quantized.name: pair for pair in pairs}
    plain = {name: name for pair in pairs for name in pair.quantized.output}
    plain |= {pair.quantized.output[0]: f"active {pair.quantized.output[0]}" for pair in pairs if pair.absorbed}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        pair = spared.get(node.name)
        for index, name in enumerate(node.input):
            source = quantized.source(name)
            if node.op_type not in PAIR and (source in plain or (pair and source in quantized.inputs)):
                node.input[index] = plain.get(source, source)
            elif name not in quantized.live and pair and pair.float.input[index] in exact.stored:
                node.input[index] = _borrowed(pair.float.input[index])
        nodes.append(node)
        if pair and pair.absorbed:
            nodes.append(_activation(pair.absorbed, node.output[0], plain[node.output[0]], exact))
    _answer_unrounded(nodes, quantized, plain)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    _lend(model, exact)
    return model


def _borrowed(name: str) -> str:
    return f"float {name}"


def _activation(absorbed: onnx.NodeProto, read: str, made: str, exact: Graph) -> onnx.NodeProto:
    """The float file's activation on the tensor ``read``, putting out ``made``."""
    bounds = [_borrowed(name) if name in exact.stored else name for name in absorbed.input[1:]]
    node = helper.make_node(absorbed.op_type, [read, *bounds], [made])
    node.attribute.extend(absorbed.attribute)
    return node


def _answer_unrounded(nodes: list[onnx.NodeProto], quantized: Graph, plain: dict[str, str]) -> None:
    """Outputs of the model that are the rounded values of a tensor in ``plain`` become the tensor itself."""
    for name in quantized.outputs:
        source = quantized.source(name)
        if source != name and source in plain:
            maker = next(node for node in nodes if name in node.output)
            maker.output[0] = f"rounded {name}"
            nodes.append(helper.make_node("Identity", [plain[source]], [name]))


def _lend(model: onnx.ModelProto, exact: Graph) -> None:
    """Stores the float file's tensors that nodes of ``model`` read under their borrowed names."""
    read: Iterable[str] = {name for node in model.graph.node for name in node.input}
    for name in (name for name in exact.stored if _borrowed(name) in read):
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(exact.stored[name])
        tensor.name = _borrowed(name)
