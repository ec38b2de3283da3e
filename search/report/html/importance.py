"""How much each parameter of the recipes tells about a result, by permutation.

Optuna's own evaluators take only the parameters that all trials have, and most of a recipe's depend on a kind that was
chosen. So a random forest learns a result from all parameters, an absent one being a value of its own, and a parameter
counts as much as the forest's R² on recipes that it has not seen falls when its column is shuffled (Breiman, "Random
Forests", 2001, section 10). Leaves of one trunk share a training, so they are never on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.params import Value, to_params
from spaces.recipe import Recipe

Floats = NDArray[np.float64]

LEAST = 12  # recipes, in half as many trunks; fewer teach a forest nothing
MOST = 1000  # recipes that it learns from, evenly spread over the study, so that a report takes seconds
TELLING = 0.1  # R²; below it the recipes do not tell the result, and an order of the parameters would be noise
FOLDS, TREES, SHUFFLES = 3, 48, 3


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """A parameter that varies: a value for each recipe, None where the recipe has none.

    Values are numbers; of words or switches, the place in ``categories``.
    """

    name: str
    categories: tuple[str, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What ``recipes`` recipes tell about one result: R² on unseen ones, and how far it falls, by parameter."""

    recipes: int
    r2: float
    falls: dict[str, float]

    @property
    def telling(self) -> bool:
        """Whether the recipes tell enough about the result for an order of their parameters."""
        return self.r2 >= TELLING


def dimensions(recipes: Sequence[Recipe]) -> list[Dimension]:
    """The parameters that have several values among ``recipes``, in the order of the recipe's fields.

    One that is there or not, always with the same value, says no more than the kind that it comes with.
    """
    rows = [to_params(recipe) for recipe in recipes]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    varied = {name: values for name, values in columns.items() if len({*map(repr, values)} - {"None"}) > 1}
    return [_dimension(name, values) for name, values in varied.items()]


def importance(recipes: Sequence[Recipe], results: Sequence[float]) -> Importance | None:
    """How much each parameter tells about ``results``, one for each recipe; None if there are too few to say.

    A fall below zero is noise, and is given as it is.
    """
    chosen = np.unique(np.linspace(0, len(recipes) - 1, min(len(recipes), MOST)).round().astype(int)).tolist()
    target = np.array([results[place] for place in chosen])
    _, trunks = np.unique([recipes[place].trunk_id for place in chosen], return_inverse=True)
    varied = dimensions([recipes[place] for place in chosen])
    if len(chosen) < LEAST or trunks.max() + 1 < LEAST // 2 or not varied or np.ptp(target) == 0:
        return None
    whole, shuffled = _unseen(_rows(varied), target, trunks)
    spread = float(((target - target.mean()) ** 2).mean())
    r2 = 1 - float(((target - whole) ** 2).mean()) / spread
    worse = 1 - ((target - shuffled) ** 2).mean(axis=(1, 2)) / spread
    falls = {own.name: r2 - float(score) for own, score in zip(varied, worse, strict=True)}
    return Importance(recipes=len(chosen), r2=r2, falls=falls)


def _unseen(rows: Floats, target: Floats, trunks: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """What forests predict for rows whose trunk they have not seen, as they are, (rows,), and with a column shuffled.

    The latter has shape (columns, shuffles, rows).
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import GroupKFold

    rng = np.random.default_rng(0)
    whole, shuffled = np.empty(len(rows)), np.empty((rows.shape[1], SHUFFLES, len(rows)))
    for known, unseen in GroupKFold(FOLDS).split(rows, target, trunks):
        forest = RandomForestRegressor(TREES, max_features=1 / 3, min_samples_leaf=2, random_state=0)
        forest.fit(rows[known], target[known])
        whole[unseen] = forest.predict(rows[unseen])
        for column in range(rows.shape[1]):
            changed = np.tile(rows[unseen], (SHUFFLES, 1, 1))
            changed[:, :, column] = rng.permuted(changed[:, :, column], axis=1)
            found = forest.predict(changed.reshape(-1, rows.shape[1]))
            shuffled[column][:, unseen] = found.reshape(SHUFFLES, -1)
    return whole, shuffled


def _dimension(name: str, values: Sequence[Value | None]) -> Dimension:
    if all(value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values):
        return Dimension(name=name, categories=(), values=tuple(None if v is None else float(v) for v in values))
    categories = tuple(sorted({str(value) for value in values if value is not None}))
    place = {category: float(number) for number, category in enumerate(categories)}
    return Dimension(
        name=name, categories=categories, values=tuple(None if v is None else place[str(v)] for v in values)
    )  # fmt: skip


def _rows(varied: Sequence[Dimension]) -> Floats:
    """A row a recipe; what is absent lies below all that is there, where a tree can split it off."""
    columns = list[list[float]]()
    for dimension in varied:
        known = [value for value in dimension.values if value is not None]
        absent = min(known) - max(max(known) - min(known), 1.0)
        columns.append([absent if value is None else value for value in dimension.values])
    return np.array(columns, dtype=np.float64).T
