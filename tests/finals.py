"""Records as a search leaves them: how well their ratios are known is given, and their accuracies are exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from search.measure.latency import Latency
from search.record import Record
from search.store import Store
from search.tasks.resample import RESAMPLES, packed
from spaces.recipe import Recipe
from tests.fakes import make_baseline, make_record


def timed(ratio: float, half: float) -> Latency:
    made = make_record(Recipe(image_size=64), latency=ratio).measurement
    assert made is not None
    return replace(made.latency, ratio=ratio, ratio_low=ratio * math.exp(-half), ratio_high=ratio * math.exp(half))


def searched(name: str, accuracy: float, ratio: float, half: float = 0.02, **more: Any) -> Record:
    """A record of a search that knows its ratio to ``half``, with an accuracy that needs no second look."""
    made = make_record(Recipe(image_size=64), accuracy=accuracy, latency=ratio, record_id=name, **more)
    assert made.measurement is not None and made.measurement.accuracy is not None
    exact: Any = replace(made.measurement.accuracy, resampled=packed(np.full(RESAMPLES, accuracy)), low=0.0, high=1.0)
    update = {"latency": timed(ratio, half), "accuracy": exact}
    return made.model_copy(update={"measurement": made.measurement.model_copy(update=update)})


def exact_baseline() -> Record:
    """The baseline's record; its accuracy needs no second look either."""
    base = make_baseline(accuracy=0.6)
    measured = base.measurement
    assert measured is not None and measured.accuracy is not None
    known: Any = replace(measured.accuracy, resampled=packed(np.full(RESAMPLES, 0.6)), low=0.6, high=0.6)
    return base.model_copy(update={"measurement": measured.model_copy(update={"accuracy": known})})


def stored(folder: Path, records: Sequence[Record]) -> Store:
    """A study folder's records, the baseline's before these."""
    store = Store(folder)
    store.append([exact_baseline(), *records])
    return store
