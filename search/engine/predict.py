"""What recipes will be, learned from those measured so far: latency, size and accuracy, each with its error.

Extremely randomized trees (Geurts et al., 2006) on the flat parameters of the space, alone or on what a linear trend
leaves: trees do not reach beyond what they saw, a trend does. Whichever had the smaller cross-validated error is
taken, for each target. Latency and size are learned as logarithms, since their parts multiply, and so is what accuracy
lacks to a ceiling a little above the best: what costs one recipe two points costs a worse one four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn import config_context
from sklearn.model_selection import GroupKFold
from sklearn.tree import ExtraTreeRegressor

from search.engine.features import Encoder
from spaces.recipe import LEAF_FIELDS, Recipe

Floats = NDArray[np.float64]
QUANTILES = 32  # points of equal probability that stand for what an accuracy may be
TREES = 32
PENALTIES = (np.inf, 3.0, 1.0)  # of the trend; the first is taken where several are as good
FOLDS = 5
HEADROOM = 0.03  # how far the ceiling of accuracy is above the best that is known, as a share of it
TRAINING_FIELDS = ("finetune", "distill")  # they change the weights' values and nothing else
ShapeKey = tuple[str, str]
REMEMBERED = 1500  # rows that a regressor learns from, the latest: the time to fit is bounded


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Errors on trunks that were left out of the fit; None before there are two trunks.

    All are root mean squares of logarithms (0.1 is about 10 %): of latency, of size, and of what accuracy lacks to a
    ceiling a little above the best.
    """

    latency: float | None = None
    size: float | None = None
    accuracy: float | None = None


@dataclass(kw_only=True)
class _Rows:
    """What one regressor learns from: features, targets, and the trunk of each row."""

    X: list[Floats] = field(default_factory=list)
    y: list[list[float]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def add(self, row: Floats, target: list[float], group: str) -> None:
        self.X.append(row)
        self.y.append(target)
        self.groups.append(group)
        self._names.add(group)

    @property
    def distinct(self) -> int:
        return len(self._names)

    def latest(self, count: int) -> tuple[Floats, Floats, list[str]]:
        """The last of the first ``count`` rows."""
        own = slice(max(0, count - REMEMBERED), count)
        return np.array(self.X[own]), np.array(self.y[own]), self.groups[own]


class Forest:
    """A regressor that is fitted when asked, if enough was learned since; it states its cross-validated error.

    It is fitted anew when the rows grew by a twentieth, and its error is estimated anew when they doubled, so the
    cost of a suggestion does not grow with the study. Which rows it was fitted to follows from their number alone, so
    one that was taught the same rows at once predicts the same.

    Args:
        targets: how many numbers a row has.
        seed: of the trees.
        headroom: learn the logarithm of what the targets lack to a ceiling, which is this share above the largest;
            None: learn them as they are.
    """

    def __init__(self, targets: int, seed: int, *, headroom: float | None = None) -> None:
        self._rows, self._targets, self._seed, self._headroom = _Rows(), targets, seed, headroom
        self.ceiling = 0.0
        self._model: _Model | None = None
        self.fitted = self._judged = 0  # to how many rows
        self._penalties = np.full(targets, np.inf)  # of the trend; infinite: none
        self.errors: list[float] | None = None  # root mean square of each target
        self._noise = np.zeros(targets)  # what the trees' spread does not explain of that error

    def add(self, row: Floats, target: Sequence[float], group: str) -> None:
        """Learns one row of ``group``; rows of one group are never on both sides of the cross-validation."""
        self._rows.add(row, list(target), group)

    @property
    def groups(self) -> int:
        """How many groups it knows."""
        return self._rows.distinct

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of what is learned of every target, each of shape (rows, targets)."""
        self.fit()
        assert self._model is not None, "nothing was learned yet"
        mean, spread = self._model.predict(rows)
        return mean, np.sqrt(spread**2 + self._noise**2)

    def fit(self) -> None:
        """Fits, and judges before, if there are as many rows as that takes."""
        if (fitted := _twentieths(len(self._rows.X))) > self.fitted:
            if (judged := _doublings(fitted)) > self._judged:  # what a fit is judged by follows from its rows too
                self._judge(judged)
                self._judged = judged
            X, y, _ = self._rows.latest(fitted)
            self._model = _Model(X, self._learned(y), self._penalties, self._seed)
            self.fitted = fitted

    def _learned(self, y: Floats) -> Floats:
        if self._headroom is None:
            return y
        self.ceiling = float(y.max()) * (1 + self._headroom)
        return np.log(np.maximum(self.ceiling - y, 1e-6))

    def _judge(self, count: int) -> None:
        X, y, groups = self._rows.latest(count)
        if len(set(groups)) < 2:
            return
        y = self._learned(y)
        folds = list(GroupKFold(min(FOLDS, len(set(groups)))).split(X, y, groups))
        judged: list[tuple[Floats, Floats]] = []  # of each penalty: mean squares of the errors and of the spreads
        for penalty in PENALTIES:
            missed, spreads = np.zeros_like(y), np.zeros_like(y)
            for learn, test in folds:
                model = _Model(X[learn], y[learn], np.full(self._targets, penalty), self._seed)
                mean, spreads[test] = model.predict(X[test])
                missed[test] = y[test] - mean
            judged.append(((missed**2).mean(axis=0), (spreads**2).mean(axis=0)))
        squared, explained = np.array([m for m, _ in judged]), np.array([s for _, s in judged])
        best, targets = squared.argmin(axis=0), np.arange(self._targets)
        self._penalties = np.array(PENALTIES)[best]
        self.errors = [float(error) for error in np.sqrt(squared[best, targets])]
        self._noise = np.sqrt(np.maximum(squared[best, targets] - explained[best, targets], 0.0))


def _doublings(count: int) -> int:
    """The largest power of two that is no more than ``count``; 0 below 2."""
    return 1 << (count.bit_length() - 1) if count >= 2 else 0


def _twentieths(count: int) -> int:
    """The last of the counts 1, 2, 3, …, of which each is a twentieth above the one before, up to ``count``."""
    last = min(count, 1)
    while (following := last + max(1, last // 20)) <= count:
        last = following
    return last


class _Model:
    """Trees on what a ridge regression leaves of each target; no regression where its penalty is infinite."""

    def __init__(self, X: Floats, y: Floats, penalties: Floats, seed: int) -> None:
        self._centre, self._mean = X.mean(axis=0), y.mean(axis=0)
        Z = X - self._centre
        self._slopes = np.zeros((X.shape[1], y.shape[1]))
        for target, penalty in enumerate(penalties):
            if np.isfinite(penalty):
                own = Z.T @ Z + penalty * np.eye(X.shape[1])
                self._slopes[:, target] = np.linalg.solve(own, Z.T @ (y[:, target] - self._mean[target]))
        rows = np.ascontiguousarray(X, dtype=np.float32)  # what a tree works in
        rest = np.ascontiguousarray(y - self._trend(X))
        with config_context(assume_finite=True, skip_parameter_validation=True):  # most of the time otherwise
            trees = [ExtraTreeRegressor(random_state=seed * TREES + index) for index in range(TREES)]
            self._trees = [tree.fit(rows, rest, check_input=False) for tree in trees]

    def predict(self, X: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation over the trees, each of shape (rows, targets)."""
        rows = np.ascontiguousarray(X, dtype=np.float32)
        each = np.array([tree.tree_.predict(rows).reshape(len(X), -1) for tree in self._trees])
        return self._trend(X) + each.mean(axis=0), each.std(axis=0)

    def _trend(self, X: Floats) -> Floats:
        return self._mean + (X - self._centre) @ self._slopes


class Predictor:
    """Latency, size and accuracy of recipes that were not measured; measured latency and size are taken as they are.

    Latency and size depend on what shapes the model and on the leaf alone, so what was measured of one recipe holds
    for every other that differs only in its training.
    """

    def __init__(self, encoder: Encoder, seed: int) -> None:
        self._encoder = encoder
        self._known: dict[ShapeKey, tuple[float, float]] = {}
        self._costs = Forest(2, seed)
        self._accuracy = Forest(1, seed + 1, headroom=HEADROOM)

    def learn_costs(self, recipe: Recipe, *, latency: float, size: float) -> None:
        """Learns measured ratios to the baseline."""
        key = shape_key(recipe)
        if key not in self._known:
            self._costs.add(self._encoder.row(recipe), [np.log(latency), np.log(size)], key[0])
        self._known[key] = (latency, size)

    def learn_accuracy(self, recipe: Recipe, accuracy: float) -> None:
        """Learns a mAP50-95 after whole training, measured or estimated."""
        self._accuracy.add(self._encoder.row(recipe), [accuracy], recipe.trunk_id)

    @property
    def trunks(self) -> int:
        """How many trunks it knows the accuracy of."""
        return self._accuracy.groups

    def errors(self) -> Errors:
        """The cross-validated errors, as last estimated."""
        costs, accuracy = self._costs.errors, self._accuracy.errors
        return Errors(
            latency=costs[0] if costs else None,
            size=costs[1] if costs else None,
            accuracy=accuracy[0] if accuracy else None,
        )

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever predictions do."""
        self._costs.fit()
        self._accuracy.fit()
        return self._costs.fitted, self._accuracy.fitted

    def costs(self, rows: Floats) -> tuple[Floats, Floats]:
        """Latency and size ratios as predicted, shape (leaves, 2), and how far off their logarithms may be."""
        values, spread = self._costs.predict(rows)
        return np.exp(values), spread

    def measured(self, key: ShapeKey) -> tuple[float, float] | None:
        """Latency and size ratios of a leaf of this shape, if one was measured."""
        return self._known.get(key)

    def accuracy(self, rows: Floats) -> Floats:
        """Equally likely accuracies, ascending, shape (rows, ``QUANTILES``)."""
        mean, spread = self._accuracy.predict(rows)
        return self._accuracy.ceiling - np.exp(mean - spread * normal_quantiles(QUANTILES))


def shape_key(recipe: Recipe) -> ShapeKey:
    """Names everything about a recipe that latency and size depend on: all but how it is trained."""
    return trunk_shape(recipe), leaf_shape(recipe)


def trunk_shape(recipe: Recipe) -> str:
    """What of a recipe's trunk is seen in latency and size."""
    names = (name for name in type(recipe).model_fields if name not in (*TRAINING_FIELDS, *LEAF_FIELDS))
    return repr([getattr(recipe, name) for name in names])


def leaf_shape(recipe: Recipe) -> str:
    """What a leaf adds to that."""
    return repr([getattr(recipe, name) for name in LEAF_FIELDS])


@lru_cache(maxsize=1)
def normal_quantiles(count: int) -> Floats:
    """Points of equal probability that stand for a standard normal distribution, ascending, shape (count,)."""
    quantiles: Floats = norm.ppf((np.arange(count) + 0.5) / count)
    return quantiles / quantiles.std()  # the tails that equal parts cut off would make it narrower than it is
