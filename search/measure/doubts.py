"""What speaks against a measurement, in sentences.

A sentence that gives figures ends with what they mean, behind a colon, in the same words for every file.
"""

from __future__ import annotations

import numpy as np

from search.measure.pairs import FEWEST, Effort, Series

DRIFT = 0.05  # share by which the baseline may change from the first third of a measurement to the last
SPREAD = 0.15  # of the baseline: half of its runs may differ from one another by this share
WIDE = 2.0  # times the precision that was asked for, up to which an interval is worth no word


def doubts(series: Series, effort: Effort) -> tuple[str, ...]:
    """Why these times should be taken again, or with more ``effort`` than was given; empty if they are good."""
    found = list(unsteady(series))
    if series.disturbed:
        found.append("others used the memory of this machine in too many of its sessions")
    if (count := len(series.loading)) < FEWEST:
        found.append(f"its interval rests on {count} of the {FEWEST} sessions that it takes: too slow, or too few runs")
    elif (half := series.half_width()) > WIDE * effort.precision:
        found.append(f"the ratio is known to {half:.1%}, not to {effort.precision:.1%}: it takes more seconds or runs")
    return tuple(found)


def unsteady(series: Series) -> tuple[str, ...]:
    """What came and may be gone in a second attempt; the baseline, which is always the same file, is the witness."""
    found: list[str] = []
    own = series.chosen[:, 1]
    third = max(1, len(own) // 3)
    drift = float(np.median(own[-third:]) / np.median(own[:third]) - 1)
    if abs(drift) > DRIFT:
        slower = "slower: the processor throttles, or a neighbour came"
        faster = "faster: a neighbour went, or it was not warm yet"
        found.append(f"the baseline became {abs(drift):.0%} {slower if drift > 0 else faster}")
    low, middle, high = np.percentile(own, [25, 50, 75])
    if (spread := float((high - low) / middle)) > SPREAD:
        found.append(f"the baseline's own times are spread by {spread:.0%}: a noisy neighbour")
    return tuple(found)


def waiting(series: Series) -> float:
    """The share of the baseline's wall time in which its thread did not compute; 0 where that cannot be told."""
    if series.clock == "wall":
        return 0.0
    return max(0.0, float(1 - np.median(series.cpu[:, 1] / series.wall[:, 1])))
