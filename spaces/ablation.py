"""A recipe with one of its parts switched off, to see what that part brings: an ablation of a recipe that was found.

The plain recipe, in which every part is off, is the baseline's own: no step, no graph rewrite, FP32, the size of the
study's images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spaces.parts.base import Part
from spaces.parts.prune import ChannelPruning
from spaces.recipe import (
    ChannelPrune,
    Export,
    Finetune,
    Fp32,
    GradualPrune,
    NoDistill,
    NoFinetune,
    NoPrune,
    NoQat,
    NoSparsify,
    NoStructure,
    Recipe,
    SlimmingPrune,
)

Changes = Mapping[str, Any]


def switched_off(recipe: Recipe, *, image_size: int) -> dict[str, Recipe]:
    """``recipe`` without each of its parts that differ from the plain recipe's, by names that a reader understands.

    Everything else stays, but for what is nothing without the part, which goes along: with the activation the epochs
    over which it fades in, with the quantization the training for it, with all training the teacher, the training for
    the rounding, and what a prune trains on its way. A part takes its own epochs with it, and the others keep theirs.

    Args:
        recipe: what was found.
        image_size: the plain recipe's, in pixels.
    """
    changed = {name: (field, off(recipe, image_size)) for name, (field, off) in PARTS.items()}
    return {
        name: Recipe.model_validate({**dict(recipe), **changes})
        for name, (field, changes) in changed.items()
        if changes[field] != getattr(recipe, field)
    }


def _activation(recipe: Recipe, image_size: int) -> Changes:
    tune = recipe.finetune
    at_once = tune.model_copy(update={"swap_epochs": 0}) if isinstance(tune, Finetune) else tune
    return {"activation": "silu", "finetune": at_once}


def _settings(recipe: Recipe, image_size: int) -> Changes:
    tune = recipe.finetune
    return {"finetune": Finetune(epochs=tune.epochs) if isinstance(tune, Finetune) else tune}


def _all_training(recipe: Recipe, image_size: int) -> Changes:
    return {"finetune": NoFinetune(), "distill": NoDistill(), "qat": NoQat(), "prune": _untrained(recipe.prune)}


def _untrained(prune: Part) -> Part:
    """The prune that leaves as many channels in each layer, without the training on its way."""
    match prune:
        case GradualPrune():
            return prune.model_copy(update={"step_epochs": 0})
        case SlimmingPrune():
            return ChannelPrune(**prune.model_dump(include=set(ChannelPruning.model_fields)))
        case _:
            return prune


def _to(**changes: Any) -> Callable[[Recipe, int], Changes]:
    return lambda recipe, image_size: changes


# The field that the part is, and what its absence changes.
PARTS: dict[str, tuple[str, Callable[[Recipe, int], Changes]]] = {
    "image size": ("image_size", lambda recipe, image_size: {"image_size": image_size}),
    "structure": ("structure", _to(structure=NoStructure())),
    "activation": ("activation", _activation),
    "pruning": ("prune", _to(prune=NoPrune())),
    "zeros": ("sparsify", _to(sparsify=NoSparsify())),
    "training settings": ("finetune", _settings),
    "distillation": ("distill", _to(distill=NoDistill())),
    "training for the rounding": ("qat", _to(qat=NoQat())),
    "quantization": ("quantize", _to(quantize=Fp32(), qat=NoQat())),
    "graph rewrites": ("export", _to(export=Export(fast_dfl=False))),
    "all training": ("finetune", _all_training),
}
