"""Ray Tune's schedulers of a study: which trial an actor takes next, and which one is stopped at a rung."""

from __future__ import annotations

import json
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.engine.length import total_epochs
from search.engine.rungs import Rungs, known_losses, point
from search.record import Record


class NewestFirst(FIFOScheduler):
    """Gives an actor that has become free to the trial that came last.

    Ray Tune gives it to the trial that is chosen here, and takes back the actor that it was starting for that one. An
    older trial that waits is one whose actor is being started, on a node that has come, or come back. If it were
    chosen, as by ``FIFOScheduler``, its actor would be taken back at every end of another trial, and a node that joins
    a study of many short trials would never do any of them.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The last of the pending trials, or None."""
        return next((trial for trial in reversed(tune_controller.get_trials()) if trial.status == Trial.PENDING), None)


class HalvingScheduler(NewestFirst):
    """Successive halving: ``rungs`` says at each rung who goes on, and stops a trial where too many others are better.

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
