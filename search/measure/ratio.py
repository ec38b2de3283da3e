"""The ratio of two paired series of times, and how far it can be trusted.

A model that is loaded anew runs a percent faster or slower for as long as it is loaded, mostly by where its memory
happens to lie. So the unit of evidence is a session, not a run: a thousand runs of one session know that session only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Student's t distribution: its .975 quantile at 1, 2, … degrees of freedom; beyond them an expansion.
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def paired_ratio(ours: ArrayLike, theirs: ArrayLike, session: ArrayLike | None = None) -> tuple[float, float, float]:
    """The ratio of two paired series of times and its 95 % interval: (ratio, low, high).

    Each session gives one value, the median of its pairs' ratios; the ratio is their mean, and the interval Student's
    of that mean, all on a logarithmic scale, so that swapping the two series gives exactly the inverse. Within a pair
    what slows both runs down cancels. With one session only, its pairs are the values: an interval that knows nothing
    of other sessions.

    Args:
        ours: shape (n,), positive, any unit.
        theirs: shape (n,), positive, the same unit; entry i was timed next to entry i of the other.
        session: shape (n,), which session each pair is of; one for all if not given.

    Raises:
        ValueError: series of different lengths, empty ones, or a time that is not positive and finite.
    """
    values = session_logs(ours, theirs, session)
    middle = float(np.mean(values))
    if len(values) == 1:
        values = _logs(ours, theirs)
    width = t975(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    ratio, low, high = (float(value) for value in np.exp([middle, middle - width, middle + width]))
    return ratio, low, high


def session_logs(ours: ArrayLike, theirs: ArrayLike, session: ArrayLike | None) -> Floats:
    """The logarithm of each session's ratio, in the order of the sessions' numbers."""
    logs = _logs(ours, theirs)
    if session is None:
        return np.array([np.median(logs)])
    numbers = np.asarray(session)
    return np.array([np.median(logs[numbers == number]) for number in np.unique(numbers)])


def t975(freedom: int) -> float:
    """The .975 quantile of Student's t distribution, to a thousandth (Abramowitz & Stegun, 26.7.5)."""
    if freedom <= len(T975):
        return T975[freedom - 1]
    z = 1.959964
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def _logs(ours: ArrayLike, theirs: ArrayLike) -> Floats:
    one, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape or len(one) == 0:
        raise ValueError(f"the two series must be flat and pair up; got shapes {one.shape}, {other.shape}")
    if not all(np.isfinite(times).all() and (times > 0).all() for times in (one, other)):
        raise ValueError("every time must be positive and finite")
    return np.log(one / other)
