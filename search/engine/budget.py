"""Whether a study has spent what it may, as far as its records tell."""

from __future__ import annotations

from collections.abc import Sequence

from search.engine.knowledge import Knowledge
from search.study import Budget, Stall


def used_up(budget: Budget, knowledge: Knowledge) -> bool:
    """Whether the epochs are spent or the hypervolume stands still; trials and minutes are the caller's to count."""
    spent = budget.epochs is not None and knowledge.epochs >= budget.epochs
    return spent or (budget.stall is not None and stalled(knowledge.growth, budget.stall))


def stalled(growth: Sequence[float], stall: Stall) -> bool:
    """Whether the last hypervolume is less than ``stall.growth`` above that of ``stall.trials`` trials ago.

    Args:
        growth: the hypervolume after each trial, which never falls.
        stall: how much growth is asked of how many trials.
    """
    if len(growth) <= stall.trials or growth[-1] == 0.0:  # nothing was found yet: no reason to give up
        return False
    return growth[-1] < growth[-1 - stall.trials] * (1 + stall.growth)
