"""One short line for tables, naming only what differs from the plain baseline."""

from __future__ import annotations

from spaces.parts.base import Part
from spaces.recipe import (
    ChannelPruning,
    FeatureDistill,
    Finetune,
    GradualPrune,
    Int8Qat,
    Int8Static,
    LayerwisePrune,
    LowBit,
    MagnitudeSparsify,
    Mixed,
    NMSparsify,
    Recipe,
    SlimmingPrune,
    ThresholdSparsify,
    WeightOnly,
    WeightQat,
)


def describe(recipe: Recipe) -> str:
    """``recipe`` in words, such as "640px · relu · prune 0.5 l2/layer · 20 epochs · int8"."""
    words = [f"{recipe.image_size}px"]
    words += _structure(recipe.structure)
    words += [recipe.activation] if recipe.activation != "silu" else []
    words += [*_prune(recipe.prune), *_sparsify(recipe.sparsify)]
    words += [f"{recipe.finetune.epochs} epochs"] if isinstance(recipe.finetune, Finetune) else []
    words += [*_distill(recipe.distill), *_qat(recipe.qat), *_quantize(recipe.quantize)]
    return " · ".join(words)


def _structure(part: Part) -> list[str]:
    values = part.model_dump()
    kind = values.pop("kind")
    if kind == "none":
        return []
    return [" ".join([kind, *(value if name == "where" else f"{name} {value:g}" for name, value in values.items())])]


def _prune(part: Part) -> list[str]:
    if not isinstance(part, ChannelPruning):
        return []
    words = [f"prune {part.ratio:g} {part.method}/{part.scope}"]
    if isinstance(part, LayerwisePrune):
        factors = {"backbone": part.backbone, "neck": part.neck, "head": part.head}
        words += [f"{name} ×{factor:g}" for name, factor in factors.items() if factor != 1]
        words += [part.layers] if part.layers else []
    if isinstance(part, GradualPrune):
        words.append(f"{part.order} in {part.steps} steps of {part.step_epochs} epochs")
    if isinstance(part, SlimmingPrune):
        words.append(f"slimming {part.sparsity_epochs} epochs")
    if part.where != "all":
        words.append(f"{part.where} only")
    return words


def _sparsify(part: Part) -> list[str]:
    match part:
        case ThresholdSparsify():
            return [f"zeros below {part.threshold:g}"]
        case MagnitudeSparsify():
            return [f"zeros {part.ratio:g} {part.scope}"]
        case NMSparsify():
            return [f"{part.n}:{part.m} sparse"]
        case _:
            return []


def _distill(part: Part) -> list[str]:
    kind = part.model_dump()["kind"]
    if isinstance(part, FeatureDistill):
        return [f"distill {part.weight:g}"]
    return [] if kind == "none" else [f"distill {kind}"]


def _qat(part: Part) -> list[str]:
    match part:
        case WeightQat():
            return [f"qat {part.bits} bits"]
        case Int8Qat():
            return ["qat int8"]
        case _:
            return []


def _quantize(part: Part) -> list[str]:
    words = [part.model_dump()["kind"]]
    match part:
        case Int8Static() if part.head != "int8":
            words.append(f"head {part.head}")
        case WeightOnly() | LowBit():
            words.append(f"{part.bits} bits")
        case Mixed():
            words.append(f"{part.budget:g} {part.fallback}")
        case _:
            pass
    return words
