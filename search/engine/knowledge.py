"""All that is known when the next recipe is chosen, brought up to date from the records."""

from __future__ import annotations

import itertools

from search.engine.archive import Archive
from search.engine.length import total_epochs, trained_epochs
from search.engine.predict import Predictor
from search.engine.warm import Hint
from search.record import BASELINE, Record
from search.results import feasible
from search.store import Records
from search.study import StudyConfig
from spaces.recipe import Recipe

# Where accuracy has a limit, less than this share of the baseline's is as useless as none, and is learned as that
# share. One training that collapsed would otherwise be most of the error on unseen trunks, and make every recipe look
# worth a gamble. Without a limit, what loses much is still worth something, and how much has to be known.
USELESS = 0.7


class Knowledge:
    """The front, the trunks that were tried, the epochs spent, and a predictor that learned from all records.

    Args:
        config: the study; a record that breaks its limits never joins the front.
        store: the records; they are only read.
        archive: the front, empty at first.
        predictor: learns from every record, and from hints.
        hints: what earlier studies say.
    """

    def __init__(
        self, config: StudyConfig, store: Records, archive: Archive, predictor: Predictor, hints: list[Hint]
    ) -> None:
        self._config, self._store, self.archive, self.predictor = config, store, archive, predictor
        self._read = 0  # records that were taken in
        self._gains: dict[tuple[int, int], list[float]] = {}  # from a rung to the end, of trunks that finished
        self.trunks: set[str] = set()
        self.epochs = 0
        self.growth: list[float] = []  # the hypervolume after each trunk
        for hint in hints:
            predictor.learn_costs(hint.recipe, latency=hint.latency, size=hint.size)
            self._learn_accuracy(hint.recipe, hint.accuracy)

    @property
    def reachable(self) -> float:
        """The best accuracy of the baseline and of all finished records; 0 before there is one."""
        return max([self._baseline_accuracy(), *self.archive.accuracy()])

    def update(self) -> list[Record]:
        """Takes in what the store holds since the last time, and returns these records but the baseline's."""
        new = list(itertools.islice(self._store.records.values(), self._read, None))
        self._read += len(new)
        new = [record for record in new if record.id != BASELINE]
        for _, leaves in itertools.groupby(new, key=lambda record: record.recipe.trunk_id):
            self._take(list(leaves))
        return new

    def _take(self, leaves: list[Record]) -> None:
        """Learns the records of one trunk, which are stored together."""
        if (trunk := leaves[0].recipe.trunk_id) not in self.trunks:
            self.trunks.add(trunk)
            self.epochs += trained_epochs(leaves)
        for record in leaves:
            if feasible(record, self._store.baseline, self._config):
                self.archive.add(record)
            if (measured := record.measurement) is not None:
                self.predictor.learn_costs(record.recipe, latency=measured.latency.ratio, size=measured.size_ratio)
            if record.values(self.archive.objectives) is not None:
                assert measured is not None and measured.accuracy is not None
                self._learn_accuracy(record.recipe, measured.accuracy.value)
            elif record.state == "stopped" and (estimate := self._estimated_end(record)) is not None:
                self._learn_accuracy(record.recipe, estimate)
        self._compare_rungs(leaves)
        self.growth.append(self.archive.hypervolume())

    def _learn_accuracy(self, recipe: Recipe, accuracy: float) -> None:
        limited = self._config.constraints.max_accuracy_drop is not None
        least = USELESS * self._baseline_accuracy() if limited else 0.0
        self.predictor.learn_accuracy(recipe, max(accuracy, least))

    def _baseline_accuracy(self) -> float:
        baseline = self._store.baseline
        measured = baseline.measurement if baseline else None
        return measured.accuracy.value if measured and measured.accuracy else 0.0

    def _compare_rungs(self, leaves: list[Record]) -> None:
        finished = [r for r in leaves if r.state == "complete" and r.measurement and r.measurement.accuracy]
        if not finished:
            return
        total = total_epochs(leaves[0].recipe)
        end = max(r.measurement.accuracy.value for r in finished if r.measurement and r.measurement.accuracy)
        for epoch, accuracy in leaves[0].curve:
            self._gains.setdefault((epoch, total), []).append(end - accuracy)

    def _estimated_end(self, record: Record) -> float | None:
        """Where a stopped trunk might have ended: as much above its last rung as the median of those that finished.

        Nothing but a comparison at the same rung; it guides the predictor and is never told as a result.
        """
        if not record.curve:
            return None
        epoch, accuracy = record.curve[-1]
        gains = sorted(self._gains.get((epoch, total_epochs(record.recipe)), []))
        return accuracy + gains[len(gains) // 2] if gains else None
