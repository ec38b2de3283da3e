"""The noise that quantization adds to a model's tensors: how much there is, and in which layer it is born.

Noise is measured against the float file of the same model, as a share of the signal: for each channel the energy of
the difference over the energy of the float values, at most 1, and then the mean over channels. A ratio over the whole
tensor would hide a lost channel behind a loud one, as scores from 0 to 1 behind boxes of hundreds of pixels. In
decibels the share is a signal-to-quantization-noise ratio: 20 dB are a share of 0.01, 0 dB is all lost.

``onnxruntime.quantization.qdq_loss_debug`` compares tensors of the same two files too. It finds them by names, which a
compact file has not, says how much noise there is and not where it is born, and holds every tensor in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from search.quantcheck.graph import Graph, Probe, Tensors
from search.quantcheck.match import Pair

FLOOR = 1e-12  # 120 dB: no noise
Images = Sequence[np.ndarray]  # inputs of the model


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """The noise of one layer, as shares of the signal.

    ``own`` is what it makes from exact inputs, by its rounded weights (``weights``) and by the rounding of its output;
    ``carried`` is what is there when the whole file runs.
    """

    pair: Pair
    own: float
    weights: float
    carried: float


def decibels(share: float) -> float:
    """A share of noise as a signal-to-noise ratio."""
    return -10 * math.log10(max(share, FLOOR))


def layer_noise(quantized: Graph, exact: Graph, pairs: Sequence[Pair], images: Images) -> list[LayerNoise]:
    """The noise of each pair's first output, in the order of ``pairs``."""
    floats = {one: other for pair in pairs for one, other in pair.tensors().items()}
    floats |= dict(zip(quantized.inputs, exact.inputs, strict=True))
    before = {pair.quantized.output[0]: pair.float.output[0] for pair in pairs}  # an activation that the rounding does
    truth = Probe(exact.model, [*floats.values(), *before.values()])
    alone, reads = _alone(quantized, pairs, floats, truth({exact.inputs[0]: images[0]}))
    rounded = {pair.quantized.output[0]: quantized.rounded(pair.quantized.output[0]) for pair in pairs}
    whole, local = Probe(quantized.model, rounded.values()), Probe(alone, {*rounded, *rounded.values()})
    sums = {name: (Share(), Share(), Share()) for name in rounded}
    for image in images:
        values = truth({exact.inputs[0]: image})
        carried = whole({quantized.inputs[0]: image})
        own = local({quantized.inputs[0]: image} | {name: values[other] for name, other in reads.items()})
        for name, shares in sums.items():
            shares[0].add(own[rounded[name]], values[floats[name]])
            shares[1].add(own[name], values[before[name]])
            shares[2].add(carried[rounded[name]], values[floats[name]])
    return [
        LayerNoise(pair=pair, own=own.value, weights=weights.value, carried=carried.value)
        for pair in pairs
        for own, weights, carried in [sums[pair.quantized.output[0]]]
    ]


def output_noise(model: onnx.ModelProto, exact: onnx.ModelProto, images: Images) -> float:
    """The noise of the answers of ``model``, as a share: a mean over its outputs."""
    (entry, probe), (exact_entry, exact_probe) = _answers(model), _answers(exact)
    shares = [Share() for _ in exact.graph.output]
    for image in images:
        found, expected = probe({entry: image}).values(), exact_probe({exact_entry: image}).values()
        for share, one, other in zip(shares, found, expected, strict=True):
            share.add(one, other)
    return float(np.mean([share.value for share in shares]))


def _answers(model: onnx.ModelProto) -> tuple[str, Probe]:
    """The name of the model's input, and what gives its outputs."""
    return Graph(model).inputs[0], Probe(model, [entry.name for entry in model.graph.output])


class Share:
    """Adds up signal and noise of a tensor over images, for each channel (the second axis)."""

    def __init__(self) -> None:
        self.signal: np.ndarray | float = 0.0
        self.noise: np.ndarray | float = 0.0

    def add(self, found: np.ndarray, expected: np.ndarray) -> None:
        """Takes a tensor (N, C, ...) and what it should be."""
        axes = tuple(axis for axis in range(expected.ndim) if axis != 1)
        exact = expected.astype(np.float64)
        self.signal = self.signal + (exact**2).sum(axes)
        self.noise = self.noise + ((found - exact) ** 2).sum(axes)

    @property
    def value(self) -> float:
        """The mean share of noise; channels without a signal do not count."""
        signal, noise = np.atleast_1d(self.signal), np.atleast_1d(self.noise)
        loud = signal > FLOOR * signal.max(initial=FLOOR)
        return float(np.minimum(noise[loud] / signal[loud], 1).mean()) if loud.any() else 0.0


def _alone(
    quantized: Graph, pairs: Sequence[Pair], floats: dict[str, str], truth: Tensors
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A model in which each layer reads exact values, as inputs of the model, and rounds weights and output as ever.

    Returns:
        It, and the float file's tensor for each of its new inputs.
    """
    model = onnx.ModelProto()
    model.CopyFrom(quantized.model)
    known = {pair.quantized.name for pair in pairs}
    reads: dict[str, str] = {}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            source = quantized.source(name)
            if node.name in known and name in quantized.live and source in floats:
                node.input[index] = f"exact {source}"
                reads[node.input[index]] = floats[source]
    kinds = {name: helper.np_dtype_to_tensor_dtype(truth[other].dtype) for name, other in reads.items()}
    model.graph.input.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items())
    return model, reads
