"""A recipe says, completely and replayably, how one compressed model is made from the baseline.

Parts that exclude one another are distinct types under one field (``quantize: Fp32 | Fp16 | Int8Static``), told
apart by their ``kind``. A recipe is frozen, validated where it is made, and named by the hash of its content.
Adding a technique starts in `spaces/parts/`: a new type in the union of the field that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from spaces.params import Params, nested, to_params
from spaces.parts.base import Part
from spaces.parts.distill import (
    Distill,
    FeatureDistill,
    FeatureLogitDistill,
    LogitDistill,
    NoDistill,
    UnlabeledDistill,
)
from spaces.parts.export import Export
from spaces.parts.finetune import Finetune, NoFinetune, Tune
from spaces.parts.prune import (
    ChannelPrune,
    ChannelPruning,
    GradualPrune,
    LayerwisePrune,
    NoPrune,
    Prune,
    SlimmingPrune,
)
from spaces.parts.qat import Int8Qat, NoQat, Qat, WeightQat
from spaces.parts.quantize import Fp16, Fp32, Int8Dynamic, Int8Static, Int16, LowBit, Mixed, Quantize, WeightOnly
from spaces.parts.sparsify import MagnitudeSparsify, NMSparsify, NoSparsify, Sparsify, ThresholdSparsify
from spaces.parts.structure import (
    CbamChannel,
    Depthwise,
    EfficientAttention,
    Ghost,
    Grouped,
    NoStructure,
    Scale,
    SqueezeExcite,
    Structure,
)
from spaces.sense import refusal

__all__ = [
    "ActivationName",
    "CbamChannel",
    "ChannelPrune",
    "ChannelPruning",
    "Depthwise",
    "Distill",
    "EfficientAttention",
    "Export",
    "FeatureDistill",
    "FeatureLogitDistill",
    "Finetune",
    "Fp16",
    "Fp32",
    "Ghost",
    "GradualPrune",
    "Grouped",
    "Int8Dynamic",
    "Int8Qat",
    "Int8Static",
    "Int16",
    "LayerwisePrune",
    "LogitDistill",
    "LowBit",
    "MagnitudeSparsify",
    "Mixed",
    "NMSparsify",
    "NoDistill",
    "NoFinetune",
    "NoPrune",
    "NoQat",
    "NoSparsify",
    "NoStructure",
    "Part",
    "Qat",
    "Recipe",
    "Scale",
    "SlimmingPrune",
    "SqueezeExcite",
    "ThresholdSparsify",
    "UnlabeledDistill",
    "WeightOnly",
    "WeightQat",
]

STRIDE = 32  # pixels; YOLO heads need an input size that is a multiple of the largest stride
LEAF_FIELDS = ("quantize", "export")  # applied to trained weights; everything else belongs to the trunk

ActivationName = Literal["silu", "relu", "relu6", "hardswish", "leaky_relu", "mish", "gelu"]


class Recipe(Part):
    """How one model is made: input size in pixels, then the steps in the order in which they are done."""

    image_size: int = Field(ge=STRIDE, le=4096, multiple_of=STRIDE)
    structure: Structure = NoStructure()
    activation: ActivationName = "silu"
    prune: Prune = NoPrune()
    sparsify: Sparsify = NoSparsify()
    finetune: Tune = NoFinetune()
    distill: Distill = NoDistill()
    qat: Qat = NoQat()
    quantize: Quantize = Fp32()
    export: Export = Export()

    @model_validator(mode="after")
    def _makes_sense(self) -> Recipe:
        sentence = refusal(to_params(self))
        if sentence:
            raise ValueError(sentence)
        return self

    @property
    def trains(self) -> bool:
        """Whether the trunk is trained at all."""
        return self.finetune.kind != "none" or self.qat.kind != "none"

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the content's hash."""
        return content_hash(self._content(set(Recipe.model_fields)))

    @property
    def trunk_id(self) -> str:
        """The hash of everything that decides the float weights; recipes that share it share one training."""
        return content_hash(self._content(set(Recipe.model_fields) - set(LEAF_FIELDS)))

    def _content(self, fields: set[str]) -> dict[str, Any]:
        """What names the recipe: values that are defaults are left out, so a field added later renames nothing."""
        content = self.model_dump(mode="json", include=fields, exclude_defaults=True)
        for field in fields & set(content):
            part = getattr(self, field)
            if isinstance(part, Part):
                content[field]["kind"] = part.model_dump()["kind"]  # also where it is its type's default
        return content

    def to_yaml(self) -> str:
        """YAML text that ``from_yaml`` turns back into an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """The recipe in ``text``; raises pydantic's ValidationError (a ValueError) for what it refuses."""
        return cls.model_validate(yaml.safe_load(text))

    @classmethod
    def from_params(cls, params: Params) -> Recipe:
        """The recipe that the flat ``params`` describe; those of kinds that were not chosen are ignored.

        Raises:
            ValueError: a value is missing or outside what the recipe allows.
        """
        return cls.model_validate(nested(params, cls.model_fields))


def content_hash(content: Any) -> str:
    """Twelve hexadecimal digits that name JSON-able content, the same on every machine."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
