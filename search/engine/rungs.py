"""Multi-objective asynchronous successive halving: which trials go on at a rung.

After Schmucker et al., "Multi-objective asynchronous successive halving" (MO-ASHA), 2021, arXiv:2106.12639: a trial
that reaches a rung is ranked among all that were ever seen there, by non-domination first and within a front by how
much it matters to that front, and only the best share of them goes on.

It differs from the paper in these ways:

- The share that goes on is a setting of its own, larger than the paper's ``1 / eta``. Halving expects trials that were
  drawn at random, most of them poor. What the proposer hands out is good already, and early accuracy is a noisy
  witness: on the simulator, a third of them going on cost more than it saved (docs/simulate.md).
- A trial that is not among the best is stopped for good, where the paper pauses it and may promote it later. A
  stopped trial then holds neither a worker nor a checkpoint, and the decision is made once, at the rung.
- Within a front the paper orders by an epsilon net; here it is the exact hypervolume that a point adds to its front,
  which is what the search is judged by.
- Only accuracy is learned at the rung. Latency and size are measured before training and are the final ones, so a
  point at a rung is exact in every objective but one.
- Trials are compared at the same epoch of schedules of the same length. Accuracy at epoch 9 of 10, where the learning
  rate has fallen, says nothing against accuracy at epoch 9 of 40; the paper has one length for all.
- A rung that would save little of a training is none: at epoch 9 of 10 a trial is as good as trained, and its result
  tells the search more than a stop saves.
- The first trials at a rung go on, until there are enough to compare with.
- Trials are compared with the latest ``COMPARED`` at a rung, not with all: a decision takes the same time in a study of
  ten thousand trials, and a search that has learned is not compared with its beginnings for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from search.engine.length import total_epochs
from search.front import contributions, non_domination_rank
from search.record import Objective, Record

Losses = tuple[float, ...]
Decision = Literal["go on", "stop"]
Rung = tuple[int, int]  # (epochs done, epochs of the whole training)
COMPARED = 300


class RungSettings(BaseModel):
    """Rungs are at ``base``, ``base * eta``, ``base * eta**2``, … epochs; the best share ``keep`` of each goes on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    base: int = Field(default=9, ge=1)
    """Epochs before the first rung."""
    eta: float = Field(default=3, gt=1)
    """How many times as many epochs the next rung has."""
    keep: float = Field(default=0.9, gt=0, le=1)
    """The share of the trials at a rung that goes on."""
    grace: int = Field(default=4, ge=1)
    """Trials that must have been seen at a rung before any is stopped there."""
    saves: float = Field(default=0.25, gt=0, lt=1)
    """The share of a training that has to be left after a rung; one closer to the end is left out."""

    def epochs(self, total: int) -> tuple[int, ...]:
        """The rungs of a training of ``total`` epochs, which all lie before its end."""
        rungs: list[int] = []
        epoch = float(self.base)
        while round(epoch) <= (1 - self.saves) * total:
            rungs.append(round(epoch))
            epoch *= self.eta
        return tuple(rungs)


class Rungs:
    """What every trial showed at each rung, and who goes on.

    Args:
        settings: where the rungs are and how many go on.
        objectives: what a point holds, in this order; every value is given as a loss (accuracy negated).
    """

    def __init__(self, settings: RungSettings, objectives: Sequence[Objective]) -> None:
        self.settings = settings
        self._corner = tuple(0.0 if objective == "accuracy" else 1.0 for objective in objectives)
        self.objectives = tuple(objectives)
        self._seen: dict[Rung, dict[str, Losses]] = {}

    @classmethod
    def from_records(cls, settings: RungSettings, objectives: Sequence[Objective], records: Iterable[Record]) -> Rungs:
        """The state after ``records``: their learning curves at the rungs, with what was measured of their leaves."""
        rungs = cls(settings, objectives)
        trunks: dict[str, list[Record]] = {}
        for record in records:
            trunks.setdefault(record.recipe.trunk_id, []).append(record)
        for trunk, leaves in trunks.items():
            total = total_epochs(leaves[0].recipe)
            known = known_losses(leaves, rungs.objectives)
            for epoch, accuracy in leaves[0].curve:
                if known is not None and epoch in settings.epochs(total):
                    rungs.note(trunk, epoch, total, point(accuracy, known, rungs.objectives))
        return rungs

    def note(self, trial: str, epoch: int, total: int, losses: Losses) -> None:
        """Keeps what a trial showed at a rung; a second report of the same rung replaces the first."""
        seen = self._seen.setdefault((epoch, total), {})
        seen[trial] = losses
        if len(seen) > COMPARED:
            del seen[next(iter(seen))]

    def decide(self, trial: str, epoch: int, total: int, losses: Losses) -> Decision:
        """Whether ``trial`` goes on after ``epoch`` of its ``total`` epochs; what it showed is kept.

        Args:
            trial: its name, the same at every rung.
            epoch: epochs done. A trial goes on at any epoch that is no rung.
            total: epochs of its whole training.
            losses: one value an objective, minimised: accuracy as seen now, the others as measured before training.

        Raises:
            ValueError: the number of losses is not that of the objectives, or one is not a number.
        """
        if len(losses) != len(self.objectives) or np.isnan(losses).any():
            raise ValueError(f"{trial}: expected losses of {', '.join(self.objectives)}, got {losses}")
        if epoch not in self.settings.epochs(total):
            return "go on"
        self.note(trial, epoch, total, losses)
        seen = self._seen[epoch, total]
        if len(seen) < self.settings.grace:
            return "go on"
        kept = max(1, math.ceil(len(seen) * self.settings.keep - 1e-9))
        place = place_of(list(seen).index(trial), list(seen.values()), self._corner, enough=kept)
        return "go on" if place < kept else "stop"

    def seen(self, epoch: int, total: int) -> dict[str, Losses]:
        """What the latest trials showed at a rung, by name, in the order in which they came."""
        return dict(self._seen.get((epoch, total), {}))


def place_of(own: int, points: Sequence[Losses], corner: Losses, *, enough: int | None = None) -> int:
    """The place of point ``own`` (0 is the best) by non-dominated rank, then by its share of its front's volume.

    Args:
        own: its index among ``points``.
        points: losses, shape (n, m).
        corner: the worst losses that count, shape (m,).
        enough: the place is not told further than this: a point that ranks behind so many needs no volumes.
    """
    ranks = non_domination_rank(points)
    better = int((ranks < ranks[own]).sum())
    if enough is not None and better >= enough:
        return better
    front = [index for index, rank in enumerate(ranks) if rank == ranks[own]]
    if enough is not None and better + len(front) <= enough:
        return better
    added = contributions([points[index] for index in front], corner).round(12)  # equal on paper is equal
    mine = added[front.index(own)]
    # Of equal contributions the earlier trial is before the later one, so that the order of arrival decides.
    return better + sum((value, -index) > (mine, -own) for index, value in zip(front, added, strict=True))


def known_losses(leaves: Iterable[Record], objectives: Sequence[Objective]) -> dict[Objective, float] | None:
    """The best latency and size of a trunk's leaves that were not screened, or None if none was measured."""
    measured = [leaf.measurement for leaf in leaves if leaf.measurement is not None and leaf.state != "screened"]
    if not measured:
        return None
    known: dict[Objective, float] = {
        "latency": min(m.latency.ratio for m in measured),
        "size": min(m.size_ratio for m in measured),
    }
    return {objective: known[objective] for objective in objectives if objective != "accuracy"}


def point(accuracy: float, known: dict[Objective, float], objectives: Sequence[Objective]) -> Losses:
    """The losses of a trial at a rung."""
    return tuple(-accuracy if objective == "accuracy" else known[objective] for objective in objectives)
