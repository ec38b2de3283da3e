"""Doubts of many measurements in few sentences: on a busy machine every record has some."""

from __future__ import annotations

from collections.abc import Iterable

from search.record import Record

SHOWN = 4  # records that are named in a sentence


def doubt_sentences(records: Iterable[Record]) -> list[str]:
    """One for each kind of doubt about the latency of ``records``; that of one record alone with its figures.

    What a doubt says behind its last colon is the kind; see ``search.measure.doubts``.
    """
    kinds: dict[str, dict[str, str]] = {}
    for record in records:
        for doubt in record.measurement.latency.doubts if record.measurement is not None else ():
            kinds.setdefault(doubt.rpartition(": ")[2], {})[record.id] = doubt
    return [_sentence(kind, found) for kind, found in kinds.items()]


def _sentence(kind: str, found: dict[str, str]) -> str:
    if len(found) == 1:
        [(name, doubt)] = found.items()
        return f"{name}: {doubt}."
    names = ", ".join(list(found)[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    return f"{len(found)} records: {kind} ({names})."
