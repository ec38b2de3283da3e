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

LEAST = 12  # recipes, in half as many trunks; fewer teach a forest nothing
MOST = 1000  # recipes that it learns from, evenly spread over the study, so that a report takes seconds
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


def dimensions(recipes: Sequence[Recipe]) -> list[Dimension]:
    """The parameters in which ``recipes`` differ, in the order of the recipe's fields."""
    rows = [to_params(recipe) for recipe in recipes]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return [_dimension(name, values) for name, values in columns.items() if len(set(map(repr, values))) > 1]


def importance(recipes: Sequence[Recipe], results: Sequence[float]) -> Importance | None:
    """How much each parameter tells about ``results``, one for each recipe; None if there are too few to say.

    A fall below zero is noise, and is given as it is.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import GroupKFold

    chosen = np.unique(np.linspace(0, len(recipes) - 1, min(len(recipes), MOST)).round().astype(int)).tolist()
    target = np.array([results[place] for place in chosen])
    _, trunks = np.unique([recipes[place].trunk_id for place in chosen], return_inverse=True)
    varied = dimensions([recipes[place] for place in chosen])
    if len(chosen) < LEAST or trunks.max() + 1 < LEAST // 2 or not varied or np.ptp(target) == 0:
        return None
    rows = _rows(varied)
    scores, falls = list[float](), list[NDArray[np.float64]]()
    for known, unseen in GroupKFold(FOLDS).split(rows, target, trunks):
        forest = RandomForestRegressor(TREES, max_features=1 / 3, min_samples_leaf=2, random_state=0)
        forest.fit(rows[known], target[known])
        scores.append(float(forest.score(rows[unseen], target[unseen])))
        shuffled = permutation_importance(forest, rows[unseen], target[unseen], n_repeats=SHUFFLES, random_state=0)
        falls.append(shuffled["importances_mean"])
    means = np.mean(falls, axis=0).tolist()
    names = [dimension.name for dimension in varied]
    return Importance(recipes=len(chosen), r2=float(np.mean(scores)), falls=dict(zip(names, means, strict=True)))


def _dimension(name: str, values: Sequence[Value | None]) -> Dimension:
    if all(value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values):
        return Dimension(name=name, categories=(), values=tuple(None if v is None else float(v) for v in values))
    categories = tuple(sorted({str(value) for value in values if value is not None}))
    place = {category: float(number) for number, category in enumerate(categories)}
    return Dimension(
        name=name, categories=categories, values=tuple(None if v is None else place[str(v)] for v in values)
    )  # fmt: skip


def _rows(varied: Sequence[Dimension]) -> NDArray[np.float64]:
    """A row a recipe; what is absent lies below all that is there, where a tree can split it off."""
    columns = list[list[float]]()
    for dimension in varied:
        known = [value for value in dimension.values if value is not None]
        absent = min(known) - max(max(known) - min(known), 1.0)
        columns.append([absent if value is None else value for value in dimension.values])
    return np.array(columns, dtype=np.float64).T
