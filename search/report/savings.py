"""What a search did not train: trunks that were stopped at a rung, or screened before any training."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from search.engine.length import total_epochs, trained_epochs
from search.record import Record


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Trainings that ended early or never began, and the epochs that they would have gone on for.

    ``leaves`` are screened records whose trunk was trained for others: they saved no epoch. ``seconds`` is the mean
    time of an epoch over everything that was trained, None if nothing was.
    """

    stopped: int
    stopped_epochs: int
    screened: int
    screened_epochs: int
    leaves: int
    trained: int
    seconds: float | None


def savings(searched: Iterable[Record]) -> Savings:
    """What was saved among ``searched``, the records of one study without its baseline."""
    trunks: dict[str, list[Record]] = defaultdict(list)
    for record in searched:
        trunks[record.recipe.trunk_id].append(record)
    stopped, screened = list[int](), list[int]()
    seconds, trained = 0.0, 0
    for own in trunks.values():
        whole, done = total_epochs(own[0].recipe), trained_epochs(own)
        trained += done
        seconds += own[0].seconds.get("train", 0.0) if done else 0.0
        if any(record.state == "stopped" and record.curve for record in own):
            stopped.append(whole - done)
        elif all(record.state == "screened" for record in own):
            screened.append(whole)
    leaves = sum(record.state == "screened" for record in itertools.chain(*trunks.values()))
    alone = sum(len(own) for own in trunks.values() if all(record.state == "screened" for record in own))
    return Savings(
        stopped=len(stopped),
        stopped_epochs=sum(stopped),
        screened=len(screened),
        screened_epochs=sum(screened),
        leaves=leaves - alone,
        trained=trained,
        seconds=seconds / trained if trained and seconds else None,
    )
