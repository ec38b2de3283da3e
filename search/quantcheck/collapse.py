"""Accuracy that quantization lost, and the layers that it was lost in: found by their noise, proven by sparing them.

First the noisiest layers are put back to float, one after another, until the answers are good; then each of them is
quantized again, unless that spoils the answers once more. What is left is the cause, and the finding says what sparing
it brings back.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from search.errors import UserError
from search.quantcheck.finding import SHOWN, Finding, listed
from search.quantcheck.graph import HEAVY, PAIR, Graph
from search.quantcheck.match import Pair, in_float, matched
from search.quantcheck.noise import Images, LayerNoise, decibels, layer_noise, output_noise
from search.stages.precision.graph import prepared

LOST = 0.05  # accuracy: more than this is a collapse
# Noise of the answers as a share of the signal (15 dB). Good int8 files of YOLOv8 have 28 to 34 dB (docs/int8.md).
NOISY = 10**-1.5
TRIED = 12  # layers that are put back to float, at most
BETTER = 4  # times less noise (6 dB) is a cure, where the answers were not that noisy
WORSE = 1.1  # times the noise: answers that are spoiled again
FEW = 64  # weights of a layer that decodes, such as the expectation over a box side's 16 bins
SILENT = 1e-10  # own noise of layers that only move values

Measure = Callable[[Path], float]  # accuracy of a file


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Layers that spoil the answers, the noisiest first, and the noise of the answers with all but them in 8 bits."""

    layers: tuple[LayerNoise, ...]
    before: float  # shares
    after: float
    enough: bool  # whether sparing them makes the answers good


def collapse_findings(path: Path, float_file: Path, images: Images, measure: Measure | None = None) -> list[Finding]:
    """A finding if the quantized file at ``path`` lost what the float file of the same model can.

    Args:
        path: a file with QuantizeLinear and DequantizeLinear nodes, or with weights of few bits.
        float_file: what it was made from, or a float file of the same trained model.
        images: inputs of the model to compare both on, (1, 3, H, W) each.
        measure: gives the accuracy of a file. Without it the noise of the answers is what counts.

    Raises:
        UserError: the files are not of one model.
    """
    quantized = Graph(onnx.load(path))
    # Most are quantized after ONNX Runtime's preparation, which changes nodes, and some are not.
    choices = [
        (graph, matched(quantized, graph)) for graph in (Graph(prepared(float_file)), Graph(onnx.load(float_file)))
    ]
    exact, pairs = max(choices, key=lambda choice: len(choice[1]))
    _check_pair(quantized, exact, pairs, (path, float_file))
    before = output_noise(quantized.model, exact.model, images)
    accuracies = (measure(float_file), measure(path)) if measure else None
    if (accuracies[0] - accuracies[1] <= LOST) if accuracies else before <= NOISY:
        return []
    cause = find_cause(quantized, exact, layer_noise(quantized, exact, pairs, images), before, images)
    regained = _regained(quantized, exact, cause, measure) if measure else None
    return [_finding(cause, quantized, accuracies, regained)]


def _check_pair(quantized: Graph, exact: Graph, pairs: Sequence[Pair], paths: tuple[Path, Path]) -> None:
    found, wanted = sum(pair.quantized.op_type in HEAVY for pair in pairs), len(quantized.heavy())
    sizes = [_input_size(graph) for graph in (quantized, exact)]
    if sizes[0] != sizes[1] or found < wanted / 2:
        raise UserError(
            f"{paths[1]} is no float file of the model in {paths[0]}: {found} of {wanted} layers are the same, inputs "
            f"are {sizes[1]} and {sizes[0]}; give the file that it was quantized from"
        )


def _input_size(graph: Graph) -> str:
    entry = next(entry for entry in graph.model.graph.input if entry.name == graph.inputs[0])
    return "×".join(str(size.dim_value or "?") for size in entry.type.tensor_type.shape.dim)


def find_cause(
    quantized: Graph, exact: Graph, noise: Sequence[LayerNoise], before: float, images: Images
) -> Cause:  # fmt: skip
    """The layers whose sparing makes the answers good, or the noisiest ones if no few do.

    Args:
        quantized: the quantized graph.
        exact: its float graph.
        noise: of all its layers.
        before: the noise of the answers as they are, a share.
        images: to look at answers on.
    """

    def left(layers: Sequence[LayerNoise]) -> float:
        return output_noise(in_float(quantized, exact, [layer.pair for layer in layers]), exact.model, images)

    ranked = sorted((layer for layer in noise if layer.own > SILENT), key=lambda layer: -layer.own)[:TRIED]
    good = min(NOISY, before / BETTER)
    chosen: list[LayerNoise] = []
    after = before
    while len(chosen) < len(ranked) and after > good:
        chosen.append(ranked[len(chosen)])
        after = left(chosen)
    for layer in chosen[::-1] if after <= good else ():
        fewer = [other for other in chosen if other is not layer]
        if fewer and (then := left(fewer)) <= max(after * WORSE, good):
            chosen, after = fewer, then
    return Cause(layers=tuple(chosen), before=before, after=after, enough=after <= good)


def _regained(quantized: Graph, exact: Graph, cause: Cause, measure: Measure) -> float:
    """The accuracy with the cause in float."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(in_float(quantized, exact, [layer.pair for layer in cause.layers]), path)
        return measure(path)


def _finding(cause: Cause, quantized: Graph, accuracies: tuple[float, float] | None, regained: float | None) -> Finding:
    names = [layer.pair.float.name for layer in cause.layers]
    before, after = (round(decibels(share), 1) for share in (cause.before, cause.after))
    lost, back = f"the signal-to-noise ratio of the answers is {before} dB", f"it is {after} dB"
    numbers = {"output_db": before, "output_db_spared": after}
    if accuracies is not None and regained is not None:
        lost = f"accuracy falls from {accuracies[0]:.3f} to {accuracies[1]:.3f}, and {lost}"
        back = f"accuracy is {regained:.3f} and the ratio {after} dB"
        numbers |= {"accuracy_float": accuracies[0], "accuracy": accuracies[1], "accuracy_spared": regained}
    born = "It is lost in" if cause.enough else "Many layers have a part in it, the most noise is from"
    where = " ".join(_where(layer) for layer in cause.layers[:SHOWN])
    text = f"Quantization spoils the answers: {lost}. {born} {listed(names)}: with these in float {back}. {where}"
    advice = _advice(cause, quantized)
    return Finding(code="collapse", text=text, advice=advice, layers=tuple(names), numbers=numbers)


def _where(layer: LayerNoise) -> str:
    """In what one layer loses what it is given."""
    what = "weights" if layer.weights > layer.own / 2 else "output"
    return f"{layer.pair.float.name}: by rounding its {what}, {decibels(layer.own):.1f} dB from exact inputs."


def _advice(cause: Cause, quantized: Graph) -> str:
    names = [layer.pair.float.name for layer in cause.layers]
    late = _after_layers(quantized)
    steps: list[str] = []
    if any(layer.weights > layer.own / 2 and _has_one_scale(quantized, layer) for layer in cause.layers):
        steps.append("Give weights a scale for each output channel: `per_channel: true`.")
    if any(layer.pair.quantized.name in late for layer in cause.layers):
        steps.append("Leave everything after the last layer with weights in float, as recipes do.")
    if not cause.enough:
        steps.append("Train with the rounding: `qat` in a recipe; or take more bits.")
    elif any(layer.pair.absorbed for layer in cause.layers):
        steps.append(
            "Give these layers 16 bits: `quantize: {kind: mixed, fallback: int16}`. ONNX Runtime would round float "
            "weights before a Relu when it loads the file."
        )
    else:
        steps.append(f"Leave these nodes in float: `quantize: {{kind: mixed}}`, or nodes_to_exclude={names!r}.")
    return " Or: ".join(steps)


def _has_one_scale(graph: Graph, layer: LayerNoise) -> bool:
    """Whether the weights of a layer have one scale, and not one for each output channel."""
    maker = graph.maker.get(layer.pair.quantized.input[1]) if len(layer.pair.quantized.input) > 1 else None
    scale = graph.stored.get(maker.input[1]) if maker is not None and maker.op_type in PAIR else None
    return scale is not None and math.prod(scale.dims) == 1


def _after_layers(graph: Graph) -> set[str]:
    """The names of the nodes, such as those that decode boxes, that no node with weights comes after."""
    needed: set[str] = set()
    late: set[str] = set()
    for node in reversed(graph.model.graph.node):
        if (node.op_type in HEAVY and _weights(graph, node) > FEW) or needed & set(node.output):
            needed |= set(node.input)
        else:
            late.add(node.name)
    return late


def _weights(graph: Graph, node: onnx.NodeProto) -> int:
    """How many values the largest stored tensor behind the inputs of ``node`` has."""
    return max((math.prod(graph.stored[name].dims) for name in graph.stored_behind(node)), default=0)
