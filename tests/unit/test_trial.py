"""One trial's parts that need no training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.errors import MeasurementError
from search.record import Measurement
from search.screen import Bar, Expectation
from search.study import Constraints
from search.target import Target
from search.trial import Task, _screen
from spaces.recipe import ChannelPrune, Finetune, Int8Static, Recipe
from tests.fakes import make_record

TRUNK = Recipe(image_size=64, prune=ChannelPrune(ratio=0.5), finetune=Finetune(epochs=2))


def test_a_leaf_that_cannot_be_timed_fails_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its twin in the other precision goes on, though what was expected of both together is known no more."""
    leaves = (TRUNK, TRUNK.model_copy(update={"quantize": Int8Static()}))

    def quick(file: Path) -> Measurement:
        if file.name == leaves[1].id:
            raise MeasurementError("it hangs its runtime")
        measured = make_record(TRUNK, accuracy=None, state="stopped").measurement
        assert measured is not None
        return measured

    def write_leaf(model: Any, leaf: Recipe, inputs: Any, *, folder: Path, form: str) -> Path:
        return folder

    monkeypatch.setattr("search.pipeline.write_leaf", write_leaf)
    bar = Bar(reachable_accuracy=0.6, rivals=(), constraints=Constraints(), objectives=("accuracy", "latency"))
    nothing = Expectation(accuracy=((0.1,), (0.1,)), front=(), floor=0.0, least=1e9)  # neither would be worth it
    task = Task(leaves=leaves, bar=bar, expected=nothing)
    gauge: Any = SimpleNamespace(quick=quick)
    place: Any = SimpleNamespace(inputs=None, target=Target(), fault_of=lambda error: None)
    records = _screen(task, None, gauge, place, tmp_path)
    assert [records[leaf.id].state for leaf in leaves] == ["stopped", "failed"]
    assert records[leaves[1].id].reason == "MeasurementError: it hangs its runtime"
    gauge.quick = lambda file: quick(tmp_path)
    assert {record.state for record in _screen(task, None, gauge, place, tmp_path).values()} == {"screened"}
