"""A study of several targets: what the search found for one of them, seen from another.

One training serves all targets. The search is for the main one; its records hold what the same recipes are on the
others, and a front for each of them is read from there. What was measured again on one of them is in the ``Finals`` of
that target.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from scipy.stats import kendalltau

from search.record import Measurement, Record
from search.store import Records


def seen_from(store: Records, target: str) -> Records:
    """The records as they are on one of the study's other targets; those that could not be had there are left out."""
    return Records(moved for record in store.records.values() if (moved := _moved(record, target)) is not None)


def _moved(record: Record, target: str) -> Record | None:
    found = record.elsewhere.get(target)
    if found is None or found.measurement is None:
        return None
    return record.model_copy(update={"measurement": found.measurement, "artifact": found.artifact, "elsewhere": {}})


def agreement(stores: dict[str, Records]) -> list[dict[str, Any]]:
    """How far two targets agree on which recipe is the faster and which the more accurate, for every two of them.

    Args:
        stores: the records as each target has them, by its name.

    Returns:
        For each pair: ``targets``, ``records`` that both have, and Kendall's tau of their latency ratios and of their
        accuracies: 1 where every two recipes are in the same order on both, -1 where in the opposite, None below two
        records or where one side has no order.
    """
    rows: list[dict[str, Any]] = []
    for one, other in combinations(stores, 2):
        mine, theirs = _measured(stores[one]), _measured(stores[other])
        both = sorted(mine.keys() & theirs.keys())
        rows.append(
            {
                "targets": [one, other],
                "records": len(both),
                "latency_tau": _tau([mine[n].latency.ratio for n in both], [theirs[n].latency.ratio for n in both]),
                "accuracy_tau": _tau([_accuracy(mine[n]) for n in both], [_accuracy(theirs[n]) for n in both]),
            }
        )
    return rows


def _measured(store: Records) -> dict[str, Measurement]:
    return {
        record.id: record.measurement
        for record in store.searched
        if record.state == "complete" and record.measurement is not None and record.measurement.accuracy is not None
    }


def _accuracy(measured: Measurement) -> float:
    assert measured.accuracy is not None
    return measured.accuracy.value


def _tau(ours: list[float], theirs: list[float]) -> float | None:
    if len(ours) < 2 or len(set(ours)) < 2 or len(set(theirs)) < 2:
        return None
    found: Any = kendalltau(ours, theirs)  # its type has no attributes
    return float(found.statistic)
