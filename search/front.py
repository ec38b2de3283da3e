"""The non-dominated front of a set of losses: dominance, ranks, hypervolume, and picks. Pure array functions.

A *loss* array has shape (n, m): n points, m objectives, every one of them minimised. A maximised objective
(accuracy) is negated once, by the caller, where the records are read. Point a dominates point b when a is
no worse in every objective and better in at least one (Deb et al., "A fast and elitist multiobjective
genetic algorithm: NSGA-II", 2002). Equal points do not dominate one another: all copies of a non-dominated
point are on the front.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

PickName = Literal["recommended", "knee", "fastest", "smallest", "most-accurate"]
PICKS: tuple[PickName, ...] = get_args(PickName)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# Smaller differences are rounding, not accuracy: 0.585 - 0.575 is 0.010000000000000009 in floating point.
_ROUNDING = 1e-9
_BLOCK = 256  # points compared at once: large enough to be one numpy call, small enough to stay in cache


def non_dominated(losses: ArrayLike) -> Bools:
    """Return the mask, shape (n,), of the points no other point dominates; equal points are all kept.

    Args:
        losses: shape (n, m), minimised. Infinite values are ordinary values here.

    Raises:
        ValueError: the array is not two-dimensional with m >= 1, or holds a NaN.
    """
    points = _checked(losses)
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    return _front(unique)[inverse.reshape(-1)]


def non_domination_rank(losses: ArrayLike) -> Ints:
    """Return each point's rank, shape (n,): 0 on the front, 1 on the front of the rest, and so on.

    Args:
        losses: shape (n, m), minimised. Equal points share a rank.

    Raises:
        ValueError: as `non_dominated`.
    """
    points = _checked(losses)
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    ranks = np.zeros(len(unique), dtype=np.int64)
    rest = np.arange(len(unique))  # stays in lexicographic order while fronts are peeled off, so it is sorted once
    rank = 0
    while len(rest):
        front = _front(unique[rest])
        ranks[rest[front]] = rank
        rest = rest[~front]
        rank += 1
    return ranks[inverse.reshape(-1)]


def hypervolume(losses: ArrayLike, reference: ArrayLike) -> float:
    """Return the exact volume dominated by the points and bounded by the reference, for m = 1, 2 or 3.

    m = 2 is one sweep along the first objective; m = 3 sums the areas of slices between successive values
    of the third (Fonseca et al., "An improved dimension-sweep algorithm for the hypervolume indicator",
    2006).

    Args:
        losses: shape (n, m), minimised. Dominated points and copies add nothing, and neither does a point
            that is not better than the reference in every objective.
        reference: shape (m,), finite: the worst loss that still counts.

    Returns:
        The volume, in the product of the objectives' units; 0.0 without a contributing point.

    Raises:
        ValueError: a NaN or minus infinity among the losses, an infinite reference, a wrong shape, or
            m > 3.
    """
    points = _checked(losses)
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != (points.shape[1],) or not np.isfinite(corner).all():
        raise ValueError(f"the reference must hold {points.shape[1]} finite values; got {corner.tolist()}")
    if points.shape[1] > 3:
        raise ValueError(f"the hypervolume is computed for 1, 2 or 3 objectives; got {points.shape[1]}")
    if np.isneginf(points).any():
        raise ValueError("a loss of minus infinity has no finite hypervolume; drop that point first")
    inside = points[(points < corner).all(axis=1)]
    front = np.unique(inside[non_dominated(inside)], axis=0)
    if len(front) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(corner[0] - front[0, 0])
    return _area(front, corner) if points.shape[1] == 2 else _volume(front, corner)


def contributions(losses: ArrayLike, reference: ArrayLike) -> Floats:
    """Return the volume, bounded by the reference, that each point dominates and no other does; shape (n,).

    The coordinates of the points cut the space into cells, each dominated by the points at or below its lower corner
    in every objective: running sums over the grid count them, and name the one where there is only one. The grid has
    about n**m cells, so this is for fronts, not for thousands of points.

    Args:
        losses: shape (n, m), minimised. Copies of a point share their volume, so none of them adds any.
        reference: shape (m,), finite: the worst loss that still counts.

    Raises:
        ValueError: a NaN or minus infinity among the losses.
    """
    points, corner = _checked(losses), np.asarray(reference, dtype=np.float64)
    if np.isneginf(points).any():
        raise ValueError("a loss of minus infinity has no finite volume; drop that point first")
    inside = np.flatnonzero((points < corner).all(axis=1))
    axes: list[Floats] = [np.unique(points[inside, axis]) for axis in range(points.shape[1])]
    cells: list[Ints] = [cuts.searchsorted(points[inside, axis]) for axis, cuts in enumerate(axes)]
    count, owner = np.zeros([len(cuts) for cuts in axes], dtype=np.int64), np.zeros([len(cuts) for cuts in axes])
    np.add.at(count, tuple(cells), 1)
    np.add.at(owner, tuple(cells), np.arange(len(inside)))
    volume = np.ones([1] * len(axes))
    for axis, cuts in enumerate(axes):
        count, owner = count.cumsum(axis=axis), owner.cumsum(axis=axis)
        widths = np.diff(np.append(cuts, corner[axis]))
        volume = volume * widths.reshape([-1 if own == axis else 1 for own in range(len(axes))])
    alone = count == 1
    own = np.zeros(len(points))
    own[inside] = np.bincount(owner[alone].astype(np.int64), weights=volume[alone], minlength=len(inside))
    return own


def pick(
    name: str,
    *,
    accuracy: ArrayLike,
    latency: ArrayLike,
    size: ArrayLike,
    baseline_accuracy: float,
    tolerance: float = 0.01,
) -> int:
    """Return the index of the member of a front that a name stands for.

    - ``most-accurate``: the highest accuracy.
    - ``fastest``: the lowest latency.
    - ``smallest``: the smallest size.
    - ``recommended``: the fastest member whose accuracy is at most `tolerance` below the baseline's; when
      there is none, the member with the smallest drop, which is the most accurate one.
    - ``knee``: the member farthest below the chord between the fastest and the most accurate member, both
      axes scaled so that these two are (0, 1) and (1, 0) in (latency, lost accuracy): where giving up more
      accuracy starts to buy less speed (Das, "On characterizing the 'knee' of the Pareto curve", 1999).
      When no member lies below the chord, the most accurate one.

    Ties go to the better accuracy, then the lower latency, then the smaller size, then the lower index.

    Args:
        name: one of `PICKS`.
        accuracy: shape (n,), higher is better, as a fraction (0.01 is one point of mAP).
        latency: shape (n,), lower is better, any unit.
        size: shape (n,), lower is better, any unit.
        baseline_accuracy: the accuracy of the uncompressed model, in the unit of `accuracy`.
        tolerance: the largest accuracy drop ``recommended`` accepts; 0.01 is one point of mAP.

    Raises:
        ValueError: an unknown name, an empty front, arrays of different lengths, or a NaN.
    """
    lost, slow, big = _checked_front(accuracy, latency, size)
    match name:
        case "most-accurate":
            return _first([lost, slow, big])
        case "fastest":
            return _first([slow, lost, big])
        case "smallest":
            return _first([big, lost, slow])
        case "recommended":
            good = baseline_accuracy + lost <= tolerance + _ROUNDING
            return _first([slow, lost, big], good) if good.any() else _first([lost, slow, big])
        case "knee":
            return _first([-_depth_below_chord(lost, slow), lost, slow, big])
        case _:
            raise ValueError(f"there is no pick called {name!r}; choose one of {', '.join(PICKS)}")


def _checked(losses: ArrayLike) -> Floats:
    points = np.asarray(losses, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"losses must have shape (points, objectives); got {points.shape}")
    if np.isnan(points).any():
        raise ValueError("losses hold a NaN; drop the points that have no measurement first")
    return points


def _checked_front(accuracy: ArrayLike, latency: ArrayLike, size: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return lost accuracy (minus the accuracy), latency and size as float arrays of one length."""
    arrays = [np.asarray(values, dtype=np.float64) for values in (accuracy, latency, size)]
    if any(values.ndim != 1 or len(values) != len(arrays[0]) for values in arrays):
        raise ValueError(
            "accuracy, latency and size must be flat arrays of one length; "
            f"got shapes {', '.join(str(values.shape) for values in arrays)}"
        )
    if len(arrays[0]) == 0:
        raise ValueError("the front is empty: no finished trial to pick from; let at least one trial complete")
    if any(np.isnan(values).any() for values in arrays):
        raise ValueError("a member of the front holds a NaN; only measured members can be picked")
    return -arrays[0], arrays[1], arrays[2]


def _front(unique: Floats) -> Bools:
    return _front_2d(unique) if unique.shape[1] <= 2 else _front_nd(unique)


def _front_2d(unique: Floats) -> Bools:
    """Return the front's mask of distinct points in lexicographic order, one or two objectives.

    In this order a point can only be dominated by an earlier one, and it is exactly when an earlier one has
    a last objective no larger than its own: one running minimum decides all points.
    """
    last = unique[:, -1]
    mask = np.ones(len(unique), dtype=np.bool_)
    mask[1:] = last[1:] < np.minimum.accumulate(last)[:-1]
    return mask


def _front_nd(unique: Floats) -> Bools:
    """Return the front's mask of distinct points in lexicographic order, any number of objectives.

    In this order a point can only be dominated by an earlier one, so each block of points is compared with
    the front so far and with itself: about n times the front's size comparisons, and no loop over single
    points.
    """
    # The first objective is sorted, so an earlier point dominates when it is no worse in all the others.
    others = np.ascontiguousarray(unique[:, 1:].T)
    mask = np.zeros(len(unique), dtype=np.bool_)
    front = others[:, :0]
    for start in range(0, len(unique), _BLOCK):
        block = others[:, start : start + _BLOCK]
        earlier = np.triu(_no_worse(block, block), k=1)
        kept = ~(_no_worse(front, block).any(axis=0) | earlier.any(axis=0))
        mask[start : start + _BLOCK] = kept
        front = np.concatenate([front, block[:, kept]], axis=1)
    return mask


def _no_worse(left: Floats, right: Floats) -> Bools:
    """Return whether left point i is no worse than right point j everywhere; (m, a) and (m, b) to (a, b)."""
    result = np.ones((left.shape[1], right.shape[1]), dtype=np.bool_)
    for mine, theirs in zip(left, right, strict=True):
        result &= mine[:, None] <= theirs
    return result


def _area(front: Floats, corner: Floats) -> float:
    """Return the area under a two-objective front given in lexicographic order, without dominated points."""
    heights = np.concatenate([corner[1:], front[:-1, 1]]) - front[:, 1]
    return float((corner[0] - front[:, 0]) @ heights)


def _volume(front: Floats, corner: Floats) -> float:
    """Return the volume under a three-objective front: area of each slice times its thickness."""
    levels = np.unique(front[:, 2])
    thickness = np.diff(np.append(levels, corner[2]))
    areas = np.zeros(len(levels))
    for index, level in enumerate(levels):
        flat = front[front[:, 2] <= level, :2]
        areas[index] = _area(flat[_front_2d(flat)], corner[:2])
    return float(areas @ thickness)


def _depth_below_chord(lost: Floats, slow: Floats) -> Floats:
    """Return how far each member lies below the chord from fastest to most accurate, shape (n,)."""
    fastest, accurate = _first([slow, lost]), _first([lost, slow])
    width = slow[accurate] - slow[fastest]
    height = lost[fastest] - lost[accurate]
    if width <= 0 or height <= 0:
        return np.zeros(len(lost))  # one member is both fastest and most accurate: there is no chord
    depth: Floats = (1 - (slow - slow[fastest]) / width - (lost - lost[accurate]) / height) / np.sqrt(2)
    # Rounding keeps the two ends at exactly zero, so that ties are ties.
    return depth.round(12)


def _first(keys: Sequence[Floats], allowed: Bools | None = None) -> int:
    """Return the index of the smallest member by the first key, then the next keys, then the index."""
    order = np.lexsort(list(reversed(keys)))
    if allowed is not None:
        order = order[allowed[order]]
    return int(order[0])
