"""Whether a file that was rewritten for several pictures answers as the file for one does, on its runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.runtimes.session import Runtime, Session, made_up
from search.runtimes.table import open_session

SAME = 0.01  # share of the differences between pictures that a batch may be away from single runs


def why_no_batch(single: Path, batched: Path, batch: int, runtime: Runtime) -> str:
    """Why ``batched`` cannot stand for ``single`` with ``batch`` pictures at once; empty if it can.

    Raises:
        MeasurementError: ``single`` itself is missing, or the runtime refuses it.
    """
    own = open_session(single, runtime)
    try:
        why = check_batch(own, open_session(batched, runtime), batch, single)
    except Exception as error:  # noqa: BLE001 - a runtime's exceptions have no common base class
        why = f"it does not run: {str(error).replace(str(batched), 'the rewritten file')}"
    return f"{single}, rewritten for {batch} pictures: {why}" if why else ""


def check_batch(single: Session, batched: Session, batch: int, path: Path, seed: int = 0) -> str:
    """Why the answers to ``batch`` different pictures at once are not those to each alone; empty if they are.

    Every row of an output, such as one class's scores, may be away by a hundredth of how much it differs from one
    picture to the next, on average over the row; so answers that went to another picture are found.
    """
    shares = [made_up(single, path, seed + number) for number in range(batch)]
    together = batched.run([np.concatenate(arrays) for arrays in zip(*shares, strict=True)])
    alone = [single.run(arrays) for arrays in shares]
    for index, output in enumerate(together):
        own = [outputs[index] for outputs in alone]
        shape = (batch * own[0].shape[0], *own[0].shape[1:])
        if output.shape != shape:
            return f"at once they give {output.shape}, where {shape} was to be"
        for number, part in enumerate(np.split(output, batch)):
            if why := _why_not_same(part, own[number], own[number - 1]):
                return why
    return ""


def _why_not_same(found: NDArray[Any], expected: NDArray[Any], other: NDArray[Any]) -> str:
    """Why ``found`` is not what is ``expected`` of a picture; ``other`` is what another picture gives."""
    expected = expected.astype(np.float64)
    away, usual = _row_means(found - expected), _row_means(other - expected)
    if np.all(away <= SAME * usual + 1e-6 * _row_means(expected)):
        return ""
    worst = float((away / np.maximum(usual, 1e-30)).max())
    return f"answers at once are not those to each alone: {worst:.1%} off of what tells two pictures apart"


def _row_means(values: NDArray[Any]) -> NDArray[np.float64]:
    """The mean distance from 0 of each row, which is the last axis."""
    return np.abs(values).mean(axis=-1)
