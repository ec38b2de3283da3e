"""Ray Tune's view of successive halving: stops a trial at a rung where too many others are better."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.engine.length import total_epochs
from search.engine.rungs import Rungs, known_losses, point
from search.record import Record


class HalvingScheduler(FIFOScheduler):
    """Starts trials in the order of their coming; ``rungs`` says at each rung who goes on.

    A trial reports its records as they would be if it ended there, each with the curve so far (see
    ``search.ray_trial.trainable``). Nothing of this is in Ray's snapshots: ``Rungs.from_records`` knows it all again.
    """

    def __init__(self, rungs: Rungs) -> None:
        super().__init__()
        self._rungs = rungs

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its scheduler into a snapshot that is never read."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP if the rung says so; a report that is of no rung changes nothing."""
        if "rung" not in result:
            return TrialScheduler.CONTINUE
        records = [Record.model_validate(content) for content in json.loads(result["rung"])]
        trunk, objectives = records[0].recipe, self._rungs.objectives
        known = known_losses(records, objectives)
        assert known is not None, "a trial that trains has a leaf that was timed"
        epoch, accuracy = next(record.curve for record in records if record.curve)[-1]
        losses = point(accuracy, known, objectives)
        decision = self._rungs.decide(trunk.trunk_id, epoch, total_epochs(trunk), losses)
        return TrialScheduler.STOP if decision == "stop" else TrialScheduler.CONTINUE
