"""Makes and times the rows of the tables of contributions (search/contributions.py says what they are).

What a host is like changes within minutes, so what a part brings is told from timings of the row's file and its pick's
one right after the other. Each is timed beside the study's baseline, as everywhere: in turn with one another, two small
models would find their weights in the caches, and their ratio would not be the front's (docs/adr/015-cold-caches.md).
"""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

from search.artifact import Gauge, MeasureLatency
from search.contributions import Timing
from search.errors import MeasurementError
from search.measure.latency import Latency
from search.measure.parcel import pack
from search.record import Record
from search.store import Store
from search.trial import trained_trunk
from search.workplace import Workplace
from spaces.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A line of a table: what it is called, its record's id, what makes it, and the id of its pick, if it has one."""

    name: str
    record_id: str
    recipe: Recipe
    place: Workplace
    pick: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What its timings say they are of."""
        return self.pick, self.record_id


@dataclass(frozen=True, kw_only=True)
class RowBench:
    """Makes the file of a row once, and times it as often as asked.

    Files are kept in ``folder``. ``latency`` times a file beside the study's baseline.
    """

    store: Store
    place: Workplace
    latency: MeasureLatency
    folder: Path
    _files: dict[str, Path] = field(default_factory=dict[str, Path])

    def look(self, wanted: Wanted, known: Record | None) -> tuple[Record, Timing | None]:
        """The row's record, and one timing; None for a record of the search whose file is gone.

        Args:
            wanted: the row.
            known: its complete record, if there is one already. Nothing is trained to time it again.

        Raises:
            NotTrainedError: the row has to be trained first, and may not.
            Exception: whatever else making, validating or timing its file raises.
        """
        if known is None:
            gauge, file = self._make(wanted, wanted.place)
            record = Record(id=wanted.record_id, recipe=wanted.recipe, state="complete")
            measured = gauge.full(file, wanted.recipe)
            return record.model_copy(update={"measurement": measured}), self._timing(wanted, measured.latency)
        file = self._file(wanted, known)
        if not file.exists():
            return known, None
        return known, self._timing(wanted, self.latency(file, self.place.target.effort()))

    def _timing(self, wanted: Wanted, latency: Latency) -> Timing:
        """The row's latency of just now, and the pick's."""
        pick = self._pick_latency(wanted.pick) if wanted.pick else None
        return Timing(row=wanted.record_id, latency=latency, pick=wanted.pick, pick_latency=pick)

    def _pick_latency(self, pick: str) -> Latency | None:
        """None if its file is gone or cannot be timed: that is not the row's fault."""
        artifact = self.store.records[pick].artifact
        assert artifact is not None
        file = self.place.folder / artifact.path
        try:
            return self.latency(file, self.place.target.effort()) if file.exists() else None
        except MeasurementError:
            traceback.print_exc()
            return None

    def _file(self, wanted: Wanted, known: Record) -> Path:
        if known.artifact is not None:
            return self.place.folder / known.artifact.path
        if wanted.record_id not in self._files:
            place = wanted.place
            self._make(wanted, replace(place, inputs=replace(place.inputs, may_train=False)))
        return self._files[wanted.record_id]

    def _make(self, wanted: Wanted, place: Workplace) -> tuple[Gauge, Path]:
        """Writes the row's file, and gives what measures it."""
        from search.pipeline import shape, write_leaf

        recipe = wanted.recipe
        model = shape(recipe, place.inputs)
        gauge = place.gauge(model, recipe.image_size, self.latency)
        trained = trained_trunk(model, recipe, place)
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            file = write_leaf(trained, recipe, place.inputs, folder=Path(name) / "leaf", form=place.target.format)
            kept = pack(file).unpack(self.folder / wanted.record_id)
        self._files[wanted.record_id] = kept
        return gauge, kept
