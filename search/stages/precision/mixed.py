"""8 bits for most layers; those that suffer most from it keep more.

Ranking layers by the damage of each alone is the sensitivity analysis of Wu et al., "Integer Quantization for Deep
Learning Inference", 2020 (arXiv 2004.09602), section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.execution_providers.qnn.mixed_precision_overrides_utils import (
    MixedPrecisionTensorQuantOverridesFixer,
)
from onnxruntime.quantization.tensor_quant_overrides import TensorQuantOverridesHelper

from search.stages.precision.calibration import ImageSource
from search.stages.precision.damage import layer_damage
from search.stages.precision.graph import at_opset, prepared
from search.stages.precision.layers import block, decode_nodes
from search.stages.precision.static import quantized_model, save
from spaces.parts.quantize import Mixed


def to_mixed(source: Path, part: Mixed, images: ImageSource, path: Path) -> None:
    """Writes the float file at ``source`` to ``path`` in 8 bits but for the layers that the budget spares."""
    model, seen = prepared(source), images(part.images)
    spared = worst(layer_damage(source, model, calibrator=part.calibrator, images=seen), part.budget)
    exclude = decode_nodes(model)
    overrides: dict[str, Any] = {}
    if part.fallback == "int16":
        model = at_opset(model, 21)
        overrides = _in_16_bits(model, spared)
    else:
        exclude += [node.name for conv in spared for node in block(model, conv)]
    quantized = quantized_model(model, seen, calibrator=part.calibrator, exclude=exclude, overrides=overrides)
    save(quantized, source, seen, path)


def worst(damage: dict[str, float], budget: float) -> list[str]:
    """The layers of the largest damage: the share ``budget`` of all, rounded down."""
    ranked = sorted(damage, key=lambda name: (-damage[name], name))
    return ranked[: math.floor(budget * len(ranked))]


def _in_16_bits(model: onnx.ModelProto, convs: Collection[str]) -> dict[str, Any]:
    """Types that make blocks compute on 16-bit activations, with conversions at their borders.

    Only a convolution's own output is asked for: ONNX Runtime's helper draws in what it reads and what reads it,
    which is the activation after it.
    """
    outputs = [node.output[0] for node in model.graph.node if node.name in set(convs)]
    overrides = TensorQuantOverridesHelper({name: [{"quant_type": QuantType.QUInt16}] for name in outputs})
    fixer = MixedPrecisionTensorQuantOverridesFixer.create_from_model(overrides, model, QuantType.QUInt8)
    fixer.apply(default_activation_qtype=QuantType.QUInt8, default_activation_symmetric=False)
    return overrides.get_dict()
