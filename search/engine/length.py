"""How long a recipe trains."""

from __future__ import annotations

from collections.abc import Sequence

from search.record import Record
from spaces.parts.prune import training_epochs
from spaces.recipe import Recipe


def total_epochs(recipe: Recipe) -> int:
    """Epochs of all trainings of ``recipe``: while it is pruned, and in every part that has ``epochs`` of its own."""
    own = (getattr(getattr(recipe, field), "epochs", 0) for field in type(recipe).model_fields)
    return training_epochs(recipe.prune) + sum(own)


def trained_epochs(leaves: Sequence[Record]) -> int:
    """Epochs that were spent on the records of one trunk: none where all were screened, all but where it stopped."""
    states = {leaf.state for leaf in leaves}
    if states == {"screened"}:
        return 0
    if "stopped" in states:
        return leaves[0].curve[-1][0] if leaves[0].curve else 0
    return total_epochs(leaves[0].recipe)
