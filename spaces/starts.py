"""Recipes that every search tries first: what a practitioner would do by hand."""

from __future__ import annotations

from spaces.params import Params
from spaces.recipe import Recipe
from spaces.space import Space

# Each is moved to the nearest recipe that the space allows. All quantizations of a start are measured on its one
# trained model, so "int8 only" shares a trial with the baseline.
STARTS: dict[str, Params] = {
    "baseline": {
        "activation": "silu",
        "prune.kind": "none",
        "finetune.kind": "none",
        "quantize.kind": "fp32",
    },
    "int8 only": {
        "activation": "silu",
        "prune.kind": "none",
        "finetune.kind": "none",
        "quantize.kind": "int8",
    },
    "light prune": {
        "activation": "silu",
        "prune.kind": "channels",
        "prune.channels.ratio": 0.25,
        "finetune.train.epochs": 20,
    },
    "half width": {"activation": "relu", "prune.kind": "channels", "prune.channels.ratio": 0.5},
}
PLAIN: Params = {
    "structure.kind": "none",
    "prune.channels.method": "l2",
    "prune.channels.scope": "layer",
    "finetune.kind": "train",
    "finetune.train.epochs": 1e9,  # as many as the space allows
    "finetune.train.lr": 2e-3,
    "finetune.train.schedule": "cosine",
    "distill.kind": "none",
    "quantize.kind": "int8",
}


def starting_recipes(space: Space, *, image_size: int) -> list[Recipe]:
    """The starts as recipes of ``space`` at ``image_size`` pixels, one for each trunk, in order."""
    recipes = (space.nearest({"image_size": image_size, **PLAIN, **start}) for start in STARTS.values())
    return list({recipe.trunk_id: recipe for recipe in recipes}.values())
