"""Layers that are quantized in the file and that ONNX Runtime still computes in float, and why.

What is looked at is the model as ONNX Runtime has rewritten it for this machine. A layer between a DequantizeLinear
and a QuantizeLinear that it did not replace by an integer kernel costs more than in a float file: it computes in float
and converts twice. Weights that are stored small and unpacked when the file is loaded are no concern of this.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from search.quantcheck.finding import Finding, count, listed
from search.quantcheck.graph import Graph, run
from search.runtimes.onnx_runtime import open_onnx
from search.stages.precision.layers import ACTIVATION_OPERATORS

# Kernels of ONNX Runtime that compute in integers, by what they are called after optimisation.
INTEGER = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "ConvInteger"} | {
    "MatMulInteger",
    "MatMulNBits",
}
REASONS = {
    "wide": ("their activations have 16 bits, for which there is no integer kernel", "Quantize activations to 8 bits."),
    "zero_point": (
        "{after} follows, whose output has a zero point other than the lowest code, so the rounding cannot do its work",
        "Let ranges of activations start at their least value: `symmetric: false` in a recipe, ActivationSymmetric "
        "False for quantize_static.",
    ),
    "output": (
        "what they put out is not quantized before {after} reads it",
        "Quantize that tensor too: QuantizeLinear and DequantizeLinear after the layer and after its activation.",
    ),
    "signed": (
        "their activations are signed 8-bit integers, which ONNX Runtime fuses in a few places only on x86",
        "Quantize activations to unsigned and weights to signed integers (QUInt8 and QInt8), as `kind: int8` does.",
    ),
    "unknown": ("the file does not show why", "Try another activation, or a newer ONNX Runtime."),
}
ABSORBED = {"Relu", "Clip"}  # into the rounding after them, if its zero point allows


@dataclass(frozen=True, kw_only=True)
class Fused:
    """How ONNX Runtime computes a quantized file here."""

    integer: tuple[str, ...]  # names of layers that multiply in integers
    unfused: dict[str, tuple[str, ...]]  # by the reason (a key of ``REASONS``), and what comes after
    float_by_choice: tuple[str, ...]  # layers that the file has in float
    rounded_at_load: tuple[str, ...]  # the same, but ONNX Runtime does not keep to it
    between: Counter[str]  # activations in float between a DequantizeLinear and a QuantizeLinear
    macs: dict[str, int]  # multiply-accumulates of every layer

    def share(self, layers: Collection[str]) -> float:
        """The share of the multiplications that the named layers do."""
        return sum(self.macs[name] for name in layers) / max(sum(self.macs.values()), 1)


def look(path: Path) -> Fused:
    """Has ONNX Runtime optimise the ONNX file at ``path`` for this machine and sorts its layers."""
    graph = Graph(onnx.load(path))
    heavy = graph.heavy()
    marked = onnx.ModelProto()
    marked.CopyFrom(graph.model)
    places = {node.name: index for index, node in enumerate(graph.model.graph.node)}
    for index, node in enumerate(marked.graph.node):
        node.name = f"node{index}_"  # optimisers add to a name, and some take the name of an output instead
    kernels = Graph(_optimised(marked))
    names = (re.match(r"node(\d+)_", kernel.name) for kernel in kernels.nodes if kernel.op_type in INTEGER)
    integer = {int(found[1]) for found in names if found}
    unfused: dict[str, list[str]] = {}
    chosen: list[str] = []
    for node in heavy:
        if places[node.name] in integer:
            continue
        if _is_quantized(graph, node):
            unfused.setdefault(_reason(graph, node), []).append(node.name)
        else:
            chosen.append(node.name)
    spared = [node for node in heavy if places[node.name] in integer and _has_float_weights(graph, node)]
    return Fused(
        integer=tuple(node.name for node in heavy if places[node.name] in integer),
        unfused={reason: tuple(names) for reason, names in unfused.items()},
        float_by_choice=tuple(chosen),
        rounded_at_load=tuple(node.name for node in spared),
        between=_between(kernels),
        macs=_macs(graph),
    )


def unfused_findings(seen: Fused) -> list[Finding]:
    """What ONNX Runtime computes in float although the file has it in 8 bits."""
    found: list[Finding] = []
    for key, names in seen.unfused.items():
        reason, _, after = key.partition(" ")
        why, advice = REASONS[reason]
        share = seen.share(names)
        text = (
            f"{count(len(names), 'quantized layer')} computed in float here, {share:.0%} of the multiplications, with "
            f"conversions before and after: {listed(names)}. The reason: {why.format(after=after)}."
        )
        numbers = {"layers": len(names), "macs_share": share}
        found.append(Finding(code="unfused", text=text, advice=advice, layers=names, numbers=numbers))
    if seen.rounded_at_load:
        found.append(_rounded_finding(seen.rounded_at_load))
    if seen.between and not seen.unfused:  # with layers that are not fused, it is their reason that counts
        found.append(_between_finding(seen.between))
    return found


def _rounded_finding(names: tuple[str, ...]) -> Finding:
    """On ``WeightBiasQuantization``, in ONNX Runtime since 1.21 (microsoft/onnxruntime#22969, #25673)."""
    return Finding(
        code="rounded_at_load",
        text=f"{count(len(names), 'layer')} with float weights in the file: ONNX Runtime rounds them to 8 bits, one "
        f"scale a layer, when it loads the file, since quantized values go in and come out: {listed(names)}.",
        advice="Store these weights in 8 bits with a scale for each output channel, or in 16 (`fallback: int16`). Or "
        'open the file with disabled_optimizers=["WeightBiasQuantization"].',
        layers=names,
        numbers={"layers": len(names)},
    )


def _between_finding(between: Counter[str]) -> Finding:
    counted = ", ".join(f"{number} {name}" for name, number in between.most_common())
    if ABSORBED.issuperset(between):
        why, advice = "the rounding before them cannot do their work", REASONS["zero_point"][1]
    else:
        why = "no 8-bit kernel in ONNX Runtime"
        advice = "Take an activation that has one (relu, relu6, leaky_relu, silu), and measure both."
    text = f"{counted} between quantized layers compute in float, with conversions before and after: {why}."
    return Finding(code="float_between", text=text, advice=advice, numbers=dict(between))


def _optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "optimised.onnx"
        onnx.save(model, source)
        open_onnx(source, threads=1, optimised=target)
        return onnx.load(target)


def _is_quantized(graph: Graph, node: onnx.NodeProto) -> bool:
    live = [name for name in node.input if name in graph.live]
    return all(graph.is_rounded(name) for name in live) and (len(live) > 1 or graph.is_rounded(node.input[1]))


def _has_float_weights(graph: Graph, node: onnx.NodeProto) -> bool:
    plain = node.op_type in {"Conv", "ConvTranspose", "Gemm", "MatMul"} and node.input[1] not in graph.live
    return plain and not graph.is_rounded(node.input[1])


def _reason(graph: Graph, node: onnx.NodeProto) -> str:
    """A key of ``REASONS``, and after a space the operator that reads the output, where it matters."""
    kind = _code_type(graph, node.input[0])
    readers = graph.readers[node.output[0]]
    if kind in {TensorProto.UINT16, TensorProto.INT16}:
        return "wide"
    if not any(reader.op_type == "QuantizeLinear" for reader in readers):
        after = readers[0] if readers else None
        if after is not None and after.op_type in ABSORBED and graph.rounded(after.output[0]) != after.output[0]:
            return f"zero_point {after.op_type}"
        return f"output {after.op_type if after is not None else 'the answer'}"
    return "signed" if kind == TensorProto.INT8 else "unknown"


def _code_type(graph: Graph, name: str) -> int:
    """The type of the integers behind a dequantized tensor, by the zero point; unsigned where there is none."""
    inputs = graph.maker[name].input
    return graph.stored[inputs[2]].data_type if len(inputs) > 2 and inputs[2] in graph.stored else TensorProto.UINT8


def _between(kernels: Graph) -> Counter[str]:
    """Activations in an optimised graph that read dequantized values only, and whose output is quantized."""
    found: Counter[str] = Counter()
    for node in kernels.nodes:
        back = any(reader.op_type == "QuantizeLinear" for reader in kernels.readers[node.output[0]])
        live = [name for name in node.input if name in kernels.live]
        if node.op_type in ACTIVATION_OPERATORS and back and all(kernels.is_rounded(name) for name in live):
            found[node.op_type] += 1
    return found


def _macs(graph: Graph) -> dict[str, int]:
    """Multiply-accumulates of each layer, by running the model once on zeros and looking at shapes."""
    heavy = graph.heavy()
    weights = {node.name: node.input[3 if node.op_type.startswith("QLinear") else 1] for node in heavy}
    unknown = [name for name in weights.values() if name not in graph.stored and name not in graph.inputs]
    feed = {entry.name: _zeros(entry) for entry in graph.model.graph.input if entry.name in graph.inputs}
    tensors = run(graph.model, feed, [*(node.output[0] for node in heavy), *unknown]) | feed
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    shapes |= {name: tuple(tensor.dims) for name, tensor in graph.stored.items()}
    return {node.name: _count(node, shapes[node.output[0]], shapes[weights[node.name]]) for node in heavy}


def _count(node: onnx.NodeProto, output: tuple[int, ...], weight: tuple[int, ...]) -> int:
    """Elements of the output times products for each of them, which its shape and that of the weight tell."""
    each = math.prod(weight[1:]) if "Conv" in node.op_type else weight[-2]
    if node.op_type == "ConvTranspose":
        each = weight[0]  # each input pixel reaches many output pixels: an estimate, exact without overlap
    if node.op_type == "Gemm":
        each = math.prod(weight) // output[-1]
    return math.prod(output) * each


def _zeros(entry: onnx.ValueInfoProto) -> np.ndarray:
    """A value for an input of the model; a size left open is 1."""
    kind = entry.type.tensor_type
    return np.zeros([size.dim_value or 1 for size in kind.shape.dim], helper.tensor_dtype_to_np_dtype(kind.elem_type))
