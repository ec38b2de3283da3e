"""The ratio of two paired series of times, and how far it can be trusted.

A model that is loaded anew runs a percent faster or slower for as long as it is loaded, mostly by where its memory
happens to lie. So the unit of evidence is a session, not a run: a thousand runs of one session know that session only.

What else works on the machine, or on its host, only ever makes a run longer, and a small model, whose weights are
driven out of the caches, by a larger share than a large one. So each model's time is the lower quartile of its runs,
which stays where it is while up to three in four runs are disturbed (Chen & Revels, "Robust benchmarking in noisy
environments", 2016, go as far as the minimum).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

QUANTILE = 0.25
RESAMPLES = 200
SESSION = 0.019  # standard deviation of a session's ratio, the largest that was measured (docs/adr/011)
NORMAL975 = 1.959964  # the .975 quantile of the normal distribution
# Student's t distribution: its .975 quantile at 1, 2, … degrees of freedom; beyond them an expansion.
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def paired_ratio(ours: ArrayLike, theirs: ArrayLike, session: ArrayLike | None = None) -> tuple[float, float, float]:
    """The ratio of two series of times that were taken in turn, and its 95 % interval: (ratio, low, high).

    The ratio is that of the lower quartiles. The interval is Student's on a logarithmic scale, with the deviation of a
    bootstrap over sessions, in which both runs of a pair stay together: what slows both down widens nothing. Swapping
    the two series gives exactly the inverse. With one session only, its pairs are resampled, and what sessions of
    other models were found to differ by is added.

    Args:
        ours: shape (n,), positive, any unit.
        theirs: shape (n,), positive, the same unit; entry i was timed next to entry i of the other.
        session: shape (n,), which session each pair is of; one for all if not given.

    Raises:
        ValueError: series of different lengths, empty ones, or a time that is not positive and finite.
    """
    one, other = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape or len(one) == 0:
        raise ValueError(f"the two series must be flat and pair up; got shapes {one.shape}, {other.shape}")
    if not all(np.isfinite(times).all() and (times > 0).all() for times in (one, other)):
        raise ValueError("every time must be positive and finite")
    groups = np.zeros(len(one), dtype=np.int64) if session is None else np.unique(session, return_inverse=True)[1]
    unknown = 0.0
    if not groups.any():
        groups, unknown = np.arange(len(one)), NORMAL975 * SESSION
    count = int(groups.max()) + 1
    middle = _log_ratio(one, other, np.ones((1, len(one)), dtype=np.int64))[0]
    width = 0.0
    if count > 1:
        # Of count draws, each session falls to a resample so many times.
        drawn = np.random.default_rng(0).multinomial(count, [1 / count] * count, size=RESAMPLES)
        deviation = float(np.std(_log_ratio(one, other, drawn[:, groups]))) * (count / (count - 1)) ** 0.5
        width = t975(count - 1) * deviation
    width = math.hypot(width, unknown)
    ratio, low, high = (float(value) for value in np.exp([middle, middle - width, middle + width]))
    return ratio, low, high


def _log_ratio(ours: Floats, theirs: Floats, weights: Ints) -> Floats:
    """The logarithm of the quartiles' ratio when run i counts ``weights[:, i]`` times; shape (weightings,)."""
    return np.log(_quartile(ours, weights) / _quartile(theirs, weights))


def _quartile(times: Floats, weights: Ints) -> Floats:
    """For each row of ``weights``, the smallest time that a quarter of the weight does not exceed."""
    order = np.argsort(times, kind="stable")
    sums = np.cumsum(weights[:, order], axis=1)
    return times[order][np.argmax(sums >= QUANTILE * sums[:, -1:], axis=1)]


def t975(freedom: int) -> float:
    """The .975 quantile of Student's t distribution, to a thousandth (Abramowitz & Stegun, 26.7.5)."""
    if freedom <= len(T975):
        return T975[freedom - 1]
    z = NORMAL975
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
