"""Which nodes of an exported model are its head, its decode step, its first and its last convolutions."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

import onnx

from search.tasks.table import KINDS

# Operators that a convolution block's activation is made of.
ACTIVATION_OPERATORS = {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Mul", "Relu"} | {
    "Sigmoid",
    "Softplus",
    "Swish",
    "Tanh",
}

# A linear layer, as a classifier's last one, is a convolution of a map of one pixel, and counts as one here.
CONVOLUTIONS = {"Conv", "Gemm"}
TRAINED = re.compile(rf"/model\.\d+/({'|'.join(kind.trained_nodes for kind in KINDS.values())})")


def head_nodes(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes of the head, in the order of the graph."""
    indices = [int(found[1]) for node in model.graph.node if (found := re.match(r"/model\.(\d+)/", node.name))]
    return [node.name for node in model.graph.node if node.name.startswith(f"/model.{max(indices)}/")]


def decode_nodes(model: onnx.ModelProto) -> list[str]:
    """The head's nodes after its layers with weights: they turn logits into answers and lose everything in 8 bits."""
    return [name for name in head_nodes(model) if not TRAINED.match(name)]


def float_nodes(model: onnx.ModelProto, head: Literal["int8", "float_output", "float"]) -> list[str]:
    """The nodes that stay in float for a choice of ``Int8Static.head``."""
    if head == "float":
        return head_nodes(model)
    return decode_nodes(model) + (last_convs(model) if head == "float_output" else [])


def convs(model: onnx.ModelProto) -> list[str]:
    """The names of the convolutions with trained weights, in the order of the graph: all but the decode step's."""
    decode = set(decode_nodes(model))
    return [node.name for node in model.graph.node if node.op_type in CONVOLUTIONS and node.name not in decode]


def first_convs(model: onnx.ModelProto) -> list[str]:
    """The convolutions that no other comes before."""
    reached: set[str] = set()
    found: list[str] = []
    for node in model.graph.node:
        after = bool(reached & set(node.input))
        if node.op_type == "Conv" and not after:
            found.append(node.name)
        if node.op_type == "Conv" or after:
            reached |= set(node.output)
    return found


def last_convs(model: onnx.ModelProto) -> list[str]:
    """The convolutions with trained weights that no other such comes after: they give the head's raw outputs."""
    trained = set(convs(model))
    needed: set[str] = set()
    found: list[str] = []
    for node in reversed(model.graph.node):
        before = bool(needed & set(node.output))
        if node.name in trained and not before:
            found.append(node.name)
        if node.name in trained or before:
            needed |= set(node.input)
    return found[::-1]


def inner_convs(model: onnx.ModelProto, *, skip_ends: bool) -> list[str]:
    """The convolutions with trained weights; without the first and the last ones if ``skip_ends``."""
    ends = {*first_convs(model), *last_convs(model)} if skip_ends else set[str]()
    return [name for name in convs(model) if name not in ends]


def block(model: onnx.ModelProto, conv: str) -> list[onnx.NodeProto]:
    """A convolution and the nodes of the activation after it, in the order of the graph."""
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name == conv or (node.op_type in ACTIVATION_OPERATORS and _reads_only(node, made, stored)):
            nodes.append(node)
            made |= set(node.output)
    return nodes


def _reads_only(node: onnx.NodeProto, made: Collection[str], stored: Collection[str]) -> bool:
    inputs = [name for name in node.input if name and name not in stored]
    return bool(inputs) and all(name in made for name in inputs)
