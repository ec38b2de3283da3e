"""A recipe says, completely and replayably, how one compressed model is made from the baseline.

Parts that exclude one another are distinct types under one field (``quantize: Fp32 | Fp16 | Int8Static``), told
apart by their ``kind``. A recipe is frozen, validated where it is made, and named by the hash of its content.
Adding a technique starts here: a new type in the union of the field that it belongs to.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

STRIDE = 32  # pixels; YOLO heads need an input size that is a multiple of the largest stride
LEAF_FIELDS = ("quantize", "export")  # applied to trained weights; everything else belongs to the trunk

ActivationName = Literal["silu", "relu", "relu6", "hardswish", "leaky_relu"]


class Part(BaseModel):
    """One field of a recipe: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoPrune(Part):
    """Every channel stays."""

    kind: Literal["none"] = "none"


class ChannelPrune(Part):
    """Structured pruning: whole channels are removed, so the model is physically smaller.

    ``ratio`` is the share of channels removed: of each layer (``scope: layer``), or of the whole model by one
    ranking (``scope: global``, where no layer loses more than ``max_ratio``). Channel counts are kept multiples
    of ``round_to``, always rounding down.
    """

    kind: Literal["channels"] = "channels"
    method: Literal["l1", "l2", "bn_scale", "taylor", "lamp"] = "l2"
    ratio: float = Field(gt=0, lt=1)
    scope: Literal["layer", "global"] = "layer"
    round_to: Literal[1, 4, 8, 16, 32] = 8
    max_ratio: float = Field(default=0.9, gt=0, lt=1)

    @model_validator(mode="after")
    def _bounded(self) -> ChannelPrune:
        if self.scope == "global" and self.max_ratio < self.ratio:
            raise ValueError(f"max_ratio {self.max_ratio} is below ratio {self.ratio}: no layer could reach it")
        return self


class NoFinetune(Part):
    """The weights are used as they are after the steps before."""

    kind: Literal["none"] = "none"


class Finetune(Part):
    """Training with AdamW on the training split, by Ultralytics' own trainer.

    ``lr`` is the peak learning rate; it falls to a hundredth of that, in a line or as a cosine.
    """

    kind: Literal["train"] = "train"
    epochs: int = Field(ge=1, le=10_000)
    lr: float = Field(default=2e-3, gt=0, le=1)
    schedule: Literal["linear", "cosine"] = "cosine"
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    batch: int = Field(default=16, ge=1, le=4096)


class NoDistill(Part):
    """The labels alone teach."""

    kind: Literal["none"] = "none"


class FeatureDistill(Part):
    """The baseline teaches too: L2 distance of the head's inputs, weighted by the teacher's scores."""

    kind: Literal["feature"] = "feature"
    weight: float = Field(default=0.3, gt=0, le=100)


class Fp32(Part):
    """Weights and arithmetic in 32-bit float."""

    kind: Literal["fp32"] = "fp32"


class Fp16(Part):
    """Weights stored in 16-bit float: half the size; a CPU still computes in 32 bits."""

    kind: Literal["fp16"] = "fp16"


class Int8Static(Part):
    """Static 8-bit quantization in the form that ONNX Runtime fuses: unsigned activations, signed weights.

    ``head`` says how much of the detection head stays in float beside its decode step, which always does:
    nothing more (``int8``), its last convolutions (``float_output``), or all of it (``float``).
    ``images`` is the number of calibration images, drawn from the training split.
    """

    kind: Literal["int8"] = "int8"
    calibrator: Literal["minmax", "entropy", "percentile"] = "minmax"
    per_channel: bool = True
    head: Literal["int8", "float_output", "float"] = "int8"
    images: int = Field(default=32, ge=1, le=1024)


class Export(Part):
    """Graph rewrites at export that leave the outputs as they are.

    ``fast_dfl`` computes the box distribution's expectation by one matrix product instead of a softmax.
    """

    kind: Literal["onnx"] = "onnx"
    fast_dfl: bool = True


Prune = Annotated[NoPrune | ChannelPrune, Field(discriminator="kind")]
Tune = Annotated[NoFinetune | Finetune, Field(discriminator="kind")]
Distill = Annotated[NoDistill | FeatureDistill, Field(discriminator="kind")]
Quantize = Annotated[Fp32 | Fp16 | Int8Static, Field(discriminator="kind")]


class Recipe(Part):
    """How one model is made: input size in pixels, then the steps in the order in which they are done."""

    image_size: int = Field(ge=STRIDE, le=4096, multiple_of=STRIDE)
    activation: ActivationName = "silu"
    prune: Prune = NoPrune()
    finetune: Tune = NoFinetune()
    distill: Distill = NoDistill()
    quantize: Quantize = Fp32()
    export: Export = Export()

    @model_validator(mode="after")
    def _makes_sense(self) -> Recipe:
        if self.distill.kind != "none" and self.finetune.kind == "none":
            raise ValueError("distill needs a finetune step: a teacher can only teach while the student trains")
        return self

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the content's hash."""
        return content_hash(self.model_dump(mode="json"))

    @property
    def trunk_id(self) -> str:
        """The hash of everything that decides the float weights; recipes that share it share one training."""
        return content_hash(self.model_dump(mode="json", exclude=set(LEAF_FIELDS)))

    def to_yaml(self) -> str:
        """YAML text that ``from_yaml`` turns back into an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """The recipe in ``text``; raises pydantic's ValidationError (a ValueError) for what it refuses."""
        return cls.model_validate(yaml.safe_load(text))


def content_hash(content: Any) -> str:
    """Twelve hexadecimal digits that name JSON-able content, the same on every machine."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def describe(recipe: Recipe) -> str:
    """One short line for tables, naming only what differs from the plain baseline."""
    words = [f"{recipe.image_size}px"]
    if recipe.activation != "silu":
        words.append(recipe.activation)
    if isinstance(recipe.prune, ChannelPrune):
        words.append(f"prune {recipe.prune.ratio:g} {recipe.prune.method}/{recipe.prune.scope}")
    if isinstance(recipe.finetune, Finetune):
        words.append(f"{recipe.finetune.epochs} epochs")
    if isinstance(recipe.distill, FeatureDistill):
        words.append(f"distill {recipe.distill.weight:g}")
    words.append(recipe.quantize.kind)
    if isinstance(recipe.quantize, Int8Static) and recipe.quantize.head != "int8":
        words.append(f"head {recipe.quantize.head}")
    return " · ".join(words)
