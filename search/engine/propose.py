"""Which of several candidate recipes to try: latency first, then the gain in hypervolume per epoch of training.

A candidate costs milliseconds to look at and minutes to train. Its latency and size are known or predicted, so a
candidate that breaks a limit, or that could not join the front at the best accuracy that is known to be reachable,
is dropped here. The rest is ranked by how much hypervolume all its leaves together can be expected to add to the
front and to what is in flight, which counts as if it had ended as predicted, for each epoch that it trains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.engine.archive import Archive
from search.engine.features import Encoder
from search.engine.gain import expected_gain
from search.engine.length import total_epochs
from search.engine.predict import Predictor, ShapeKey, leaf_shape, trunk_shape
from search.front import non_dominated
from search.record import Objective
from search.screen import Expectation
from search.study import Constraints
from spaces.recipe import Recipe
from spaces.space import Space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
OVERHEAD = 4.0  # what a trial costs beside its training, in epochs: export, timing and validation of its leaves
DOUBT = 2.0  # a candidate is dropped when so many errors of its predicted latency and size would not save it
# The gain is that of a latency and size better than predicted by so many errors: a trial's first step measures both,
# and costs no training, so it is worth finding out. If they are no better, the trial ends there (search/screen.py).
HOPE = 1.0
MEMBERS = {1: 400, 2: 60}  # of the front that a gain is measured against, by the number of known objectives


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a leaf has to keep, in the units of the predictions. Infinite where the study sets no limit."""

    latency: float = np.inf
    size: float = np.inf
    accuracy: float = 0.0

    @classmethod
    def of(cls, constraints: Constraints, *, accuracy: float, latency_ms: float, size_mb: float) -> Limits:
        """The limits of a study whose baseline has this accuracy, latency and size."""
        drop, ms, mb = constraints.max_accuracy_drop, constraints.max_latency_ms, constraints.max_size_mb
        ratios = [constraints.max_latency_ratio or np.inf, ms / latency_ms if ms else np.inf]
        return cls(
            latency=min(ratios),
            size=mb / size_mb if mb else np.inf,
            accuracy=0.0 if drop is None else accuracy - drop,
        )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe and all leaves of its trunk, and what is expected of them."""

    recipe: Recipe
    accuracy: Floats  # (leaves, outcomes), equally likely ones; a column is one outcome of all leaves
    costs: Floats  # (leaves, 2) latency and size
    doubt: Floats  # (leaves, 2) standard deviations of their logarithms, 0 where they were measured
    keys: tuple[ShapeKey, ...]  # (leaves,)
    epochs: int

    @cached_property
    def mean(self) -> Floats:
        """Expected accuracies, shape (leaves,)."""
        mean: Floats = self.accuracy.mean(axis=1)
        return mean

    def hopeful(self, doubts: float) -> Floats:
        """Latency and size, shape (leaves, 2), so many standard deviations better than expected."""
        return self.costs * np.exp(-doubts * self.doubt)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The candidate to try, its place among the candidates, and what it is worth trying for."""

    index: int
    candidate: Candidate
    expected: Expectation


class Proposer:
    """Chooses among candidates; ``dropped`` counts what was dropped, by reason.

    Args:
        space: for the leaves of a trunk.
        encoder: recipes as rows.
        predictor: what it believes.
        objectives: the study's.
        cost_power: the gain is divided by the epochs to this power; 0 ignores the cost.
    """

    def __init__(
        self,
        space: Space,
        encoder: Encoder,
        predictor: Predictor,
        objectives: tuple[Objective, ...],
        *,
        cost_power: float = 1.0,
        leaves: bool = True,
    ) -> None:
        self._encoder, self._predictor = encoder, predictor
        self._columns = [("latency", "size").index(o) for o in objectives if o != "accuracy"]
        self._cost_power = cost_power
        # What leaves add to a trunk's row and name is made once, though a trunk may have a few less than the plain one.
        every = space.leaves(space.nearest({})) if leaves else []
        self._leaves = [(encoder.leaf(leaf), leaf_shape(leaf)) for leaf in every]
        self.dropped: Counter[str] = Counter()

    def choose(
        self,
        recipes: Sequence[Recipe],
        archive: Archive,
        in_flight: Sequence[Candidate],
        limits: Limits,
        reachable: float,
    ) -> Chosen | None:
        """The recipe to try, or None if every one was dropped.

        Args:
            recipes: the candidates.
            archive: the front.
            in_flight: what is expected of recipes that are being tried.
            limits: what leaves have to keep.
            reachable: the best accuracy that is known to be reachable.
        """
        self.dropped["seen"] += len(recipes)
        kept: list[tuple[int, Candidate]] = []
        for index, candidate in enumerate(self.expect(recipes)):
            if (reason := self._why_dropped(candidate, archive, limits, reachable)) is not None:
                self.dropped[reason] += 1
            else:
                kept.append((index, candidate))
        if not kept:
            return None
        accuracy, known = self._front_to_beat(archive, in_flight)

        def worth(candidate: Candidate, hope: float) -> float:
            gain = expected_gain(
                accuracy,
                known,
                accuracy=candidate.accuracy,
                known=candidate.hopeful(hope)[:, self._columns],
                corner=np.ones(len(self._columns)),
                floor=limits.accuracy,
            )
            return gain / self._cost(candidate)

        hopeful = sorted(((worth(own, HOPE), -index, own) for index, own in kept), key=lambda item: item[:2])
        _, negative, chosen = hopeful.pop()
        rival = 0.0  # the worth of the best other candidate, if it turns out as predicted; never more than hoped for
        while hopeful and hopeful[-1][0] > rival:
            rival = max(rival, worth(hopeful.pop()[2], 0.0))
        expected = Expectation(
            accuracy=tuple(map(tuple, chosen.accuracy.tolist())),
            front=tuple(map(tuple, np.column_stack([accuracy, known]).tolist())),
            floor=limits.accuracy,
            least=rival * self._cost(chosen),
        )
        return Chosen(index=-negative, candidate=chosen, expected=expected)

    def _cost(self, candidate: Candidate) -> float:
        return (OVERHEAD + candidate.epochs) ** self._cost_power

    def expect(self, recipes: Sequence[Recipe]) -> list[Candidate]:
        """What is expected of each recipe's trunk: measured latency and size where there are, else predictions."""
        return [self.settled(candidate) for candidate in self.predict(recipes)]

    def settled(self, candidate: Candidate) -> Candidate:
        """The candidate with the latency and size that were measured of its shape in place of predicted ones."""
        known = {i: found for i, key in enumerate(candidate.keys) if (found := self._predictor.measured(key))}
        if not known:
            return candidate
        costs, doubt, own = candidate.costs.copy(), candidate.doubt.copy(), list(known)
        costs[own], doubt[own] = list(known.values()), 0.0
        return replace(candidate, costs=costs, doubt=doubt)

    def predict(self, recipes: Sequence[Recipe]) -> list[Candidate]:
        """What is predicted of each recipe's trunk, in one call of each regressor."""
        own = [self._leaves or [(self._encoder.leaf(recipe), leaf_shape(recipe))] for recipe in recipes]
        if not own:
            return []
        trunks = [(self._encoder.trunk(recipe), trunk_shape(recipe)) for recipe in recipes]
        rows = np.array([row + tail for (row, _), leaves in zip(trunks, own, strict=True) for tail, _ in leaves])
        keys = [(shape, leaf) for (_, shape), leaves in zip(trunks, own, strict=True) for _, leaf in leaves]
        costs, error = self._predictor.costs(rows)
        accuracy = self._predictor.accuracy(rows)
        ends = np.cumsum([len(leaves) for leaves in own])
        return [
            Candidate(
                recipe=recipe,
                accuracy=accuracy[start:end],
                costs=costs[start:end],
                doubt=error[start:end],
                keys=tuple(keys[start:end]),
                epochs=total_epochs(recipe),
            )
            for recipe, start, end in zip(recipes, [0, *ends[:-1]], ends, strict=True)
        ]

    def _front_to_beat(self, archive: Archive, in_flight: Sequence[Candidate]) -> tuple[Floats, Floats]:
        """Accuracies, shape (n,), and the other objectives of the front when all in flight has ended as expected."""
        accuracy = np.concatenate([archive.accuracy(), *(candidate.mean for candidate in in_flight)])
        costs = np.concatenate([np.empty((0, 2)), *(candidate.costs for candidate in in_flight)])
        known = np.concatenate([archive.known(), costs[:, self._columns]])
        kept = thinned(np.flatnonzero(non_dominated(np.column_stack([-accuracy, known]))), known)
        return accuracy[kept], known[kept]

    def _why_dropped(self, candidate: Candidate, archive: Archive, limits: Limits, reachable: float) -> str | None:
        """Why no leaf could join the front, or None if one could."""
        best = candidate.hopeful(DOUBT)
        within = (best[:, 0] <= limits.latency) & (best[:, 1] <= limits.size)
        if not within.any():
            return "over a limit"
        rivals = archive.known()[archive.accuracy() >= reachable]
        hopeful = best[within][:, self._columns]
        beaten = np.any(np.all(rivals[None] <= hopeful[:, None], axis=2), axis=1)
        return "cannot join the front" if beaten.all() else None


def thinned(front: Ints, known: Floats) -> Ints:
    """``front``, or so many of it that a gain is quickly found: evenly over the first of the known objectives.

    A gain looks at every cell that a front cuts: as many as it has members where one other objective is known, their
    square where two are.
    """
    most = MEMBERS[known.shape[1]]
    if len(front) <= most:
        return front
    ordered = front[np.argsort(known[front, 0], kind="stable")]
    return ordered[np.linspace(0, len(front) - 1, most).round().astype(np.int64)]
