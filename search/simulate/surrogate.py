"""A benchmark made from recorded studies: latency, size, accuracy, curves and seconds of any recipe of a space.

Each seed draws another world that the records allow, from Gaussian processes that were fitted to them: the engine
learns with regression trees, so it is not given the family of functions that the truth comes from. What the fit
calls noise is drawn once for each trunk, as one training gives one accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.engine.length import total_epochs
from search.engine.predict import TRAINING_FIELDS, trunk_shape
from search.measure.latency import Latency
from search.record import Measurement, Record
from search.simulate.curves import CurveFamily, fit_curves
from search.simulate.process import Process
from search.simulate.recorded import Recorded, leaf_name
from search.tasks.accuracy import Accuracy, DetectionAccuracy
from spaces.params import Params, Value, to_params
from spaces.recipe import LEAF_FIELDS, Recipe

Floats = NDArray[np.float64]
HEADROOM = 0.02  # how far above the best recorded accuracy the best possible one is taken to be
COLLAPSED = 0.5  # less than this share of the baseline's accuracy is a training that collapsed: no curve leads there
TRUNK = [name for name in Recipe.model_fields if name not in LEAF_FIELDS]  # what accuracy and seconds depend on
SHAPE = [name for name in Recipe.model_fields if name not in TRAINING_FIELDS]  # what latency and size depend on
LATENCY_NOISE = 0.003  # coefficient of variation of a measured ratio, see docs/adr/003-latency.md


@dataclass(frozen=True, kw_only=True)
class FitErrors:
    """Errors of the fit on trunks that were left out; the standard deviation of the data stands beside each.

    Latency and size are of natural logarithms, and of shapes that were left out; accuracy is of fractions.
    """

    latency: float
    latency_deviation: float
    size: float
    size_deviation: float
    accuracy: float
    accuracy_deviation: float
    curve: float
    curves: int
    shapes: int
    trained: int


class Surrogate:
    """What was fitted to the records; ``world`` draws one benchmark from it."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        every = [recipe for recipe, _, _ in recorded.costs]
        self._columns = _columns([*every, *(final.recipe for final in recorded.finals)])
        X = self.rows(every, SHAPE)
        self._latency = Process(X, np.log([latency for _, latency, _ in recorded.costs]), least_noise=0.02)
        self._size = Process(X, np.log([size for _, _, size in recorded.costs]), least_noise=0.02)
        self._finals = [f for f in recorded.finals if total_epochs(f.recipe) and f.accuracy > COLLAPSED * self._own]
        accuracies = np.array([final.accuracy for final in self._finals])
        self.top = float(accuracies.max()) + HEADROOM
        rows = self.rows([final.recipe for final in self._finals], TRUNK)
        self._accuracy = Process(rows, np.log(self.top - accuracies))
        self._seconds = Process(
            self.rows([recipe for recipe, _ in recorded.epoch_seconds], TRUNK),
            np.log([seconds for _, seconds in recorded.epoch_seconds]),
        )
        self.curves: CurveFamily = fit_curves([points for _, points in recorded.curves])
        self._leaves = _leaf_statistics(recorded)

    def rows(self, recipes: Sequence[Recipe], fields: Collection[str]) -> Floats:
        """What of recipes' features belongs to these fields."""
        columns = [(name, value) for name, value in self._columns if name.split(".")[0] in fields]
        flat = (to_params(recipe) for recipe in recipes)
        return np.array([[_feature(params, name, value) for name, value in columns] for params in flat])

    def errors(self) -> FitErrors:
        """The errors on left-out trunks."""
        recorded = self.recorded
        groups = [trunk_shape(recipe) for recipe, _, _ in recorded.costs]
        return FitErrors(
            latency=self._latency.error(groups),
            latency_deviation=float(np.std(np.log([latency for _, latency, _ in recorded.costs]))),
            size=self._size.error(groups),
            size_deviation=float(np.std(np.log([size for _, _, size in recorded.costs]))),
            accuracy=self._accuracy_error(),
            accuracy_deviation=float(np.std([final.accuracy for final in self._finals])),
            curve=self.curves.error,
            curves=self.curves.curves,
            shapes=len(set(groups)),
            trained=len(self._finals),
        )

    def _accuracy_error(self) -> float:
        """The error of left-out trunks, back from logarithms."""
        missed = self._accuracy.missed([final.recipe.trunk_id for final in self._finals])
        drops = np.array([self.top - final.accuracy for final in self._finals])
        return float(np.sqrt(((drops * np.exp(missed) - drops) ** 2).mean()))

    @property
    def _own(self) -> float:
        """The baseline's accuracy."""
        measured = self.recorded.baseline.measurement
        assert measured is not None and measured.accuracy is not None
        return measured.accuracy.value

    def world(self, seed: int) -> World:
        """The benchmark that ``seed`` draws."""
        return World(self, seed)


class World:
    """One benchmark: every question about a recipe has one answer, whoever asks and whenever."""

    def __init__(self, surrogate: Surrogate, seed: int) -> None:
        self._surrogate, self._seed = surrogate, seed
        random = np.random.default_rng([seed, 0])
        self._latency = surrogate._latency.draw(random)
        self._size = surrogate._size.draw(random)
        self._accuracy = surrogate._accuracy.draw(random)
        self._seconds = surrogate._seconds.draw(random)
        self._untrained = {
            final.recipe.trunk_id: final.accuracy
            for final in surrogate.recorded.finals
            if not total_epochs(final.recipe)
        }

    def measured(self, leaf: Recipe, *, accuracy: bool) -> Measurement:
        """What a leaf's file measures; its accuracy only after training."""
        row = self._surrogate.rows([leaf], SHAPE)
        baseline = self._surrogate.recorded.baseline.measurement
        assert baseline is not None
        ratio, size = float(np.exp(self._latency(row)[0])), float(np.exp(self._size(row)[0]))
        ratio *= math.exp(LATENCY_NOISE * self._dice(leaf.id, 1).normal())
        p50 = baseline.latency.quiet_ms * ratio
        return Measurement(
            accuracy=self._leaf_accuracy(leaf) if accuracy else None,
            latency=Latency(
                p50_ms=p50,
                p95_ms=1.05 * p50,
                fps=1000 * baseline.latency.batch / p50,
                ratio=ratio,
                ratio_low=ratio * (1 - 2 * LATENCY_NOISE),
                ratio_high=ratio * (1 + 2 * LATENCY_NOISE),
                baseline_p50_ms=baseline.latency.quiet_ms,
                runs=150,
                threads=1,
                clock="thread-cpu",
                cores=None,
                batch=baseline.latency.batch,
            ),
            size_bytes=round(size * baseline.size_bytes),
            size_ratio=size,
            parameters=baseline.parameters,
            flops=baseline.flops,
            host=baseline.host,
        )

    def final(self, trunk: Recipe) -> float:
        """The trunk's accuracy after its whole training, on average over its leaves."""
        if not total_epochs(trunk):
            return self._untrained.get(trunk.trunk_id, self._surrogate._own)
        row = self._surrogate.rows([trunk], TRUNK)
        noise = self._surrogate._accuracy.noise * self._dice(trunk.trunk_id, 2).normal()
        return max(0.01, self._surrogate.top - float(np.exp(self._accuracy(row)[0] + noise)))

    def accuracy_at(self, trunk: Recipe, epoch: int) -> float:
        """The float model's accuracy after ``epoch`` epochs of its training."""
        family, total = self._surrogate.curves, total_epochs(trunk)
        tau = family.tau * math.exp(family.spread * self._dice(trunk.trunk_id, 3).normal())
        relative = float(family.relative(epoch, total, tau=tau))
        relative += family.deviation(epoch, total) * self._dice(trunk.trunk_id, 1000 + epoch).normal()
        return float(np.clip(self.final(trunk) * relative, 0.0, 0.99))

    def epoch_seconds(self, trunk: Recipe) -> float:
        """Seconds of one epoch on one worker."""
        return float(np.exp(self._seconds(self._surrogate.rows([trunk], TRUNK))[0]))

    def baseline(self) -> Record:
        """The uncompressed model's record."""
        return self._surrogate.recorded.baseline

    @property
    def screen_seconds(self) -> float:
        """Seconds to export and time the untrained leaves of a trial."""
        return self._surrogate.recorded.screen_seconds

    @property
    def measure_seconds(self) -> float:
        """Seconds to export, quantize, time and validate the trained leaves of a trial."""
        return self._surrogate.recorded.measure_seconds

    def _leaf_accuracy(self, leaf: Recipe) -> Accuracy:
        mean, deviation = self._surrogate._leaves.get(leaf_name(leaf), (0.0, 0.0))
        value = self.final(leaf) + mean + deviation * self._dice(leaf.id, 4).normal()
        value = float(np.clip(value, 0.0, 0.99))
        return DetectionAccuracy(split="val", images=87, map50_95=value, map50=value, precision=value, recall=value)

    def _dice(self, name: str, purpose: int) -> np.random.Generator:
        """Random numbers that belong to a recipe and a purpose, in this world."""
        return np.random.default_rng([self._seed, 1, int(name, 16), purpose])


def _leaf_statistics(recorded: Recorded) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each leaf's difference to its trunk's mean accuracy."""
    differences: dict[str, list[float]] = {}
    for final in recorded.finals:
        for name, difference in final.differences.items():
            differences.setdefault(name, []).append(difference)
    return {name: (float(np.mean(own)), float(np.std(own))) for name, own in differences.items()}


def _columns(recipes: Sequence[Recipe]) -> list[tuple[str, Value | None]]:
    """The features that differ among recipes: (parameter, None) for a number, (parameter, value) for a choice."""
    values: dict[str, set[Value]] = {}
    for recipe in recipes:
        for name, value in to_params(recipe).items():
            values.setdefault(name, set()).add(value)
    columns: list[tuple[str, Value | None]] = []
    for name, own in values.items():
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in own):
            columns.append((name, None))
        else:
            columns += [(name, value) for value in sorted(own, key=str)]
    rows = [[_feature(to_params(recipe), name, value) for name, value in columns] for recipe in recipes]
    varies = np.ptp(np.array(rows), axis=0) > 0
    return [column for column, kept in zip(columns, varies, strict=True) if kept]


def _feature(params: Params, name: str, value: Value | None) -> float:
    """A choice as 0 or 1; a number as its logarithm, a share removed as that of what is left; 0 where absent."""
    own = params.get(name)
    if value is not None:
        return float(own == value)
    if own is None or isinstance(own, str):
        return 0.0
    if name.endswith(".ratio"):
        return math.log(1 - own)
    return math.log(own) - TYPICAL.get(name.rsplit(".", 1)[-1], 0.0) if own > 0 else 0.0


# Logarithms of usual values: a recipe without the part is then in the middle of those that have it.
TYPICAL = {"epochs": math.log(20), "lr": math.log(2e-3), "weight": math.log(0.3), "round_to": math.log(8)}
