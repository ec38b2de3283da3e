"""Small looks into, and changes of, ONNX graphs that several precisions share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.shape_inference import quant_pre_process

IR_VERSIONS = {17: 8, 21: 10, 25: 13}  # the IR that an operator set needs, of those that a storage asks for


def prepared(source: Path) -> onnx.ModelProto:
    """The float model at ``source`` with inferred shapes and simple nodes folded, as the quantizer wants it.

    Every node has a name.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(path), skip_symbolic_shape=True)
        model = onnx.load(path)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"  # what HardSwish is written out as has none
    return model


def at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """``model`` in the operator set ``opset``, one of ``IR_VERSIONS``, or as it is if it is there already."""
    if main_opset(model) >= opset:
        return model
    converted = onnx.version_converter.convert_version(model, opset)
    converted.ir_version = max(converted.ir_version, IR_VERSIONS[opset])
    return converted


def main_opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that ``model`` uses."""
    return next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The stored tensors of ``model`` by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def conv_weights(model: onnx.ModelProto, nodes: Iterable[str]) -> dict[str, np.ndarray]:
    """The weights of the named convolutions, each (out, in / groups, height, width), by their tensor's name."""
    wanted, stored = set(nodes), initializers(model)
    found = [node for node in model.graph.node if node.name in wanted]
    return {node.input[1]: numpy_helper.to_array(stored[node.input[1]]) for node in found if node.input[1] in stored}


def own_weights(model: onnx.ModelProto, nodes: Iterable[str]) -> None:
    """Gives each of the named convolutions a weight that no other reads: the exporter stores equal ones once."""
    wanted, tensors, taken = set(nodes), initializers(model), set[str]()
    for node in model.graph.node:
        if node.name not in wanted or node.input[1] not in tensors:
            continue
        if node.input[1] in taken:
            copy = onnx.TensorProto()
            copy.CopyFrom(tensors[node.input[1]])
            copy.name = node.input[1] = f"{node.name}_weight"
            model.graph.initializer.append(copy)
        taken.add(node.input[1])


def replace_tensors(model: onnx.ModelProto, new: Mapping[str, Iterable[onnx.TensorProto]]) -> None:
    """Puts other tensors in the place of the stored tensors named in ``new``."""
    stored = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in stored:
        model.graph.initializer.extend(new.get(tensor.name, (tensor,)))


def prepend_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Puts ``nodes`` before all others, where nodes that read stored tensors only may stand."""
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *old])


def set_metadata(model: onnx.ModelProto, source: Path, extra: Mapping[str, str] | None = None) -> None:
    """Gives ``model`` the properties of the file at ``source``, which Ultralytics reads back, and ``extra``.

    The quantizers drop some of them: names, stride, task.
    """
    kept = onnx.load(source, load_external_data=False).metadata_props
    onnx.helper.set_model_props(model, {**{entry.key: entry.value for entry in kept}, **(extra or {})})
