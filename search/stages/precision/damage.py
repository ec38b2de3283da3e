"""What 8 bits do to each layer of a model: the error of the head's outputs when that layer alone is quantized."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from search.stages.precision.calibration import Images, fingerprints
from search.stages.precision.graph import initializers
from search.stages.precision.layers import block, convs, decode_nodes, last_convs
from search.stages.precision.static import quantized_model
from spaces.parts.quantize import Calibrator
from spaces.recipe import content_hash

IMAGES = 8  # that the error is taken on

Read = tuple[str, int]  # a node and which of its inputs
Outputs = list[np.ndarray]


def layer_damage(source: Path, model: onnx.ModelProto, *, calibrator: Calibrator, images: Images) -> dict[str, float]:
    """The damage of each convolution block, by its convolution's name, in the order of the graph.

    It is the mean squared error of the head's raw outputs (box and class logits) in units of their variance, a mean
    over outputs and the first ``IMAGES`` images. Kept beside the source file, under a name with its hash.

    Args:
        source: the float file; only its bytes and its place matter.
        model: the same model, as ``prepared`` gives it.
        calibrator: how ranges of activations are chosen.
        images: calibration images.
    """
    content = source.read_bytes()
    key = content_hash([content_hash(content.hex()), calibrator, fingerprints(images)])
    cache = source.with_name(f"{source.stem}.damage-{key}.json")
    if not cache.is_file():
        damage = _measured(model, calibrator, images)
        with tempfile.TemporaryDirectory(dir=source.parent) as folder:
            temporary = Path(folder) / cache.name
            temporary.write_text(json.dumps(damage, indent=2), encoding="utf-8")
            os.replace(temporary, cache)
    return json.loads(cache.read_text(encoding="utf-8"))


def only_block(model: onnx.ModelProto, quantized: onnx.ModelProto, conv: str) -> onnx.ModelProto:
    """``quantized`` with everything but the block of ``conv`` turned back to what it is in the float ``model``."""
    alone = onnx.ModelProto()
    alone.CopyFrom(quantized)
    nodes = block(model, conv)
    names, made = {node.name for node in nodes}, {output for node in nodes for output in node.output}
    makers = {output for node in alone.graph.node for output in node.output}
    floats = {node.name: node for node in model.graph.node}
    stored, missing = initializers(model), set[str]()
    for node in alone.graph.node:
        if node.name in names or node.name not in floats:
            continue
        for index, tensor in enumerate(floats[node.name].input):
            if tensor not in made:  # what the block puts out stays quantized for everyone
                node.input[index] = tensor
                missing |= {tensor} & stored.keys() - makers
    missing -= initializers(alone).keys()
    alone.graph.initializer.extend(stored[name] for name in sorted(missing))
    return alone


def _measured(model: onnx.ModelProto, calibrator: Calibrator, images: Images) -> dict[str, float]:
    quantized = quantized_model(model, images, calibrator=calibrator, exclude=decode_nodes(model))
    reads, seen = _raw_outputs(model), images[:IMAGES]
    expected = _run(model, reads, seen)
    variants = ((conv, only_block(model, quantized, conv)) for conv in convs(model))
    return {conv: _error(_run(variant, reads, seen), expected) for conv, variant in variants}


def _raw_outputs(model: onnx.ModelProto) -> list[Read]:
    """Where the decode step reads what the head's last convolutions put out."""
    last, decode = set(last_convs(model)), set(decode_nodes(model))
    raw = {output for node in model.graph.node if node.name in last for output in node.output}
    return [
        (node.name, index)
        for node in model.graph.node
        if node.name in decode
        for index, name in enumerate(node.input)
        if name in raw
    ]


def _run(model: onnx.ModelProto, reads: list[Read], images: Images) -> list[Outputs]:
    """The tensors at ``reads`` for each image."""
    nodes = {node.name: node for node in model.graph.node}
    names = sorted({nodes[node].input[index] for node, index in reads})
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Loading dozens of variants costs more than running them on a few images.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted, entry = [nodes[node].input[index] for node, index in reads], model.graph.input[0].name
    return [[np.asarray(value) for value in session.run(wanted, {entry: image})] for image in images]


def _error(found: list[Outputs], expected: list[Outputs]) -> float:
    """The mean of squared differences, in units of each output's variance."""
    ratios = [
        float(np.mean((one - other) ** 2) / max(float(np.var(other)), 1e-12))
        for outputs, others in zip(found, expected, strict=True)
        for one, other in zip(outputs, others, strict=True)
    ]
    return float(np.mean(ratios))
