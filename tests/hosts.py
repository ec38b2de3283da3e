"""A machine that measures, whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from search.errors import MeasurementError
from search.measure.latency import Latency
from search.measure.pairs import Effort
from spaces.recipe import Recipe
from tests.fakes import make_record
from tests.tiny import SIZE

DOUBT = "others used the memory"


class Host:
    """A machine on which a file takes as long as it is large; each timing is ``slower`` than the one before.

    The first ``disturbed`` timings are, and the file that it ``refuses`` cannot be timed.
    """

    def __init__(self, *, slower: float = 1.0, disturbed: int = 0, refuses: Path | None = None) -> None:
        self.calls, self._slower, self._disturbed, self._refuses = 0, slower, disturbed, refuses

    def __call__(self, file: Path, effort: Effort) -> Latency:
        if file == self._refuses:
            raise MeasurementError("no such model")
        ratio = file.stat().st_size / 1e5 * self._slower**self.calls
        self.calls += 1
        made = make_record(Recipe(image_size=SIZE), latency=ratio).measurement
        assert made is not None
        disturbed = self.calls <= self._disturbed
        return replace(made.latency, disturbed=disturbed, doubts=(DOUBT,) if disturbed else (), host="host")
