"""Which trial an actor takes that has become free; for nodes that join late see test_three_nodes.py."""

from __future__ import annotations

from types import SimpleNamespace

from search.engine.rungs import Rungs, RungSettings
from search.scheduler import HalvingScheduler, NewestFirst


def test_the_last_of_those_that_wait_is_chosen() -> None:
    trials = [SimpleNamespace(status=status) for status in ("TERMINATED", "PENDING", "RUNNING", "PENDING", "ERROR")]
    controller = SimpleNamespace(get_trials=lambda: trials)
    for scheduler in (NewestFirst(), HalvingScheduler(Rungs(RungSettings(), ("accuracy", "latency")))):
        assert scheduler.choose_trial_to_run(controller) is trials[3]
    trials[3].status = "RUNNING"
    assert NewestFirst().choose_trial_to_run(controller) is trials[1]
    trials[1].status = "PAUSED"
    assert NewestFirst().choose_trial_to_run(controller) is None
