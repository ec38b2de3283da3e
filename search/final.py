"""What was measured again after a search: ``final.jsonl``, a line for each measurement of a record's file on a target.

The best of many noisy measurements flatters: it is there because its noise was in its favour. So what a study hands
over is measured anew, and the figures that chose it are not used any more. ``records.jsonl`` stays what the search saw.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from search.measure.latency import Latency
from search.record import Record
from search.store import Records, append_lines, as_line, whole_lines
from search.tasks.accuracy import Accuracy


class Final(BaseModel):
    """One measurement after the search: of latency, of accuracy on a split, or why there is none.

    ``target`` is one of the study's other targets, None for its main one; ``split`` the one that ``reason`` is about,
    empty for the latency.
    """

    model_config = ConfigDict(frozen=True)

    record_id: str
    target: str | None = None
    latency: Latency | None = None
    accuracy: Accuracy | None = None
    split: str = ""
    reason: str = ""
    at: float | None = None


OnFinal = Callable[[Final], None]


class Finals:
    """The measurements after the search on one target of a study; what is added is on the disk before the call returns.

    Args:
        folder: of the study.
        target: one of the study's other targets; its main one if not given.
        on_final: hears of each measurement that is added.
    """

    def __init__(self, folder: Path, target: str | None = None, on_final: OnFinal = lambda final: None) -> None:
        self._path, self._target, self._on_final = folder / "final.jsonl", target, on_final
        every = (Final.model_validate_json(line) for line in whole_lines(self._path))
        self.all: list[Final] = [final for final in every if final.target == target]
        self._before = len(self.all)

    def append(self, final: Final) -> None:
        """Adds a measurement on the target, with the time."""
        self.all.append(final.model_copy(update={"target": self._target, "at": time.time()}))
        append_lines(self._path, [as_line(self.all[-1])])
        self._on_final(self.all[-1])

    @property
    def timed(self) -> Counter[str]:
        """How often each record's file was timed, by id, and in vain since this was read: what was wrong before may be
        mended.
        """
        vain = [final for final in self.all[self._before :] if final.reason and not final.split]
        return Counter(final.record_id for final in [*vain, *(final for final in self.all if final.latency)])

    @property
    def calm(self) -> Counter[str]:
        """How often each record's file was timed while nobody else used the machine's memory, by id."""
        return Counter(final.record_id for final in self.all if final.latency and not final.latency.disturbed)

    def failures(self, split: str = "") -> dict[str, str]:
        """Why records could not be timed again, or measured on a split, by id; those that were are not among them."""
        own = [final for final in self.all if split == (final.accuracy.split if final.accuracy else final.split)]
        measured = {final.record_id for final in own if not final.reason}
        return {final.record_id: final.reason for final in own if final.reason and final.record_id not in measured}

    def applied(self, store: Records) -> Records:
        """The records with these measurements in place of those of the search."""
        own: dict[str, list[Final]] = {}
        for final in self.all:
            own.setdefault(final.record_id, []).append(final)
        return Records((_applied(record, own.get(record.id, [])) for record in store.records.values()), store.started)


def pooled(latencies: Sequence[Latency]) -> Latency:
    """Several measurements of a file as one; milliseconds are those of the last.

    Disturbed ones count only if all are. Ratios of two machines cannot be compared, so those of the last one's count.

    The ratio is the mean of the logarithms, each weighted by the inverse of its variance. If the measurements differ
    from one another by more than their intervals say, the interval is widened by as much (the scale factor of the
    Particle Data Group, "Review of Particle Physics", introduction, section 5.2.2).

    Raises:
        ValueError: there is none.
    """
    if not latencies:
        raise ValueError("there is no latency to pool")
    latencies = [latency for latency in latencies if latency.host == latencies[-1].host]
    latencies = [latency for latency in latencies if not latency.disturbed] or latencies
    if len(latencies) == 1:
        return latencies[0]
    logs = np.log([latency.ratio for latency in latencies])
    halves = np.array([math.log(latency.ratio_high / latency.ratio_low) / 2 for latency in latencies])
    weights = 1 / np.maximum(halves, 1e-6) ** 2
    mean = float(np.average(logs, weights=weights))
    # Halves are 1.96 standard errors, so this is chi squared over its degrees of freedom.
    excess = float((weights * (logs - mean) ** 2).sum()) * 1.96**2 / (len(logs) - 1)
    half = math.sqrt(max(1.0, excess) / weights.sum())
    return replace(
        latencies[-1],
        ratio=math.exp(mean),
        ratio_low=math.exp(mean - half),
        ratio_high=math.exp(mean + half),
        runs=sum(latency.runs for latency in latencies),
        doubts=tuple(dict.fromkeys(doubt for latency in latencies for doubt in latency.doubts)),
    )


def _applied(record: Record, finals: Sequence[Final]) -> Record:
    measured = record.measurement
    if measured is None or not finals:
        return record
    update: dict[str, object] = {}
    if latencies := [final.latency for final in finals if final.latency is not None]:
        latency = pooled(latencies)
        update |= {"latency": latency, "host": latency.host or measured.host}
    for final in finals:
        if final.accuracy is not None:
            update["test" if final.accuracy.split == "test" else "accuracy"] = final.accuracy
    return record.model_copy(update={"measurement": measured.model_copy(update=update)})
