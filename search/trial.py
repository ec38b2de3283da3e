"""One trial: a trunk's recipe in, one record for each of its leaves out.

Latency comes first. The untrained model is exported and timed in every precision; leaves that cannot join the
front are screened, and if none is left nothing is trained. Nothing here knows Ray; ``search.ray_trial`` does. Torch is
imported by the worker that runs a trial, not by the driver.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict

from search.artifact import Gauge, MeasureLatency, add_artifact, write_artifact
from search.engine.length import total_epochs
from search.errors import FaultError
from search.faults import gone
from search.live.snapshot import OnStep, Step
from search.record import Elsewhere, Record
from search.screen import Bar, Expectation, why_not_worth, why_screened
from search.workplace import Workplace, check_carried
from spaces.parts.prune import training_epochs
from spaces.recipe import Fp32, Recipe

Snapshot = Callable[[], Any]  # the averaged model as it is now
OnEpoch = Callable[[int, int, Snapshot], None]  # (epochs done, epochs in all, the model)
OnRung = Callable[[list[Record]], None]


class Task(BaseModel):
    """What the driver asks of a worker; all that changes from trial to trial."""

    model_config = ConfigDict(frozen=True)

    leaves: tuple[Recipe, ...]  # all of one trunk
    bar: Bar | None = None  # None: measure everything, screen nothing
    expected: Expectation | None = None  # of the leaves, if they were proposed for it


def try_recipe(
    task: Task,
    place: Workplace,
    measure_latency: MeasureLatency,
    on_rung: OnRung = lambda records: None,
    elsewhere: Mapping[str, MeasureLatency] = MappingProxyType({}),
    on_step: OnStep = lambda step, done, total: None,
    out: Path | None = None,
) -> list[Record]:
    """Tries every leaf of one trunk and returns their records, in order, with their artifacts below ``out``.

    A leaf that fails costs that leaf alone and is recorded with its reason. What fails for the trunk is raised.

    Args:
        task: the leaves, and what they have to beat.
        place: where to work.
        measure_latency: times a file beside the baseline's.
        on_rung: called at every rung of ``place`` with the records as they are if the trial is stopped there; what it
            raises ends the trial.
        elsewhere: times a file on each of the place's other targets, by name; on none if not given.
        on_step: hears of every step and of every epoch.
        out: where ``artifacts`` are written; in the folder of ``place`` if not given.

    Raises:
        FaultError: a folder is full or gone, or nothing measures: no recipe is to blame.
    """
    from search.pipeline import shape

    trunk, out = task.leaves[0], out or place.folder
    steps = Steps(on_step)
    with place.scratch() as scratch:
        with steps.timed("shape"):
            model = shape(trunk, place.inputs)
            gauge = place.gauge(model, trunk.image_size, measure_latency)
        with steps.timed("screen"):
            records = _screen(task, model, gauge, place, scratch / "untrained")
        left = [leaf for leaf in task.leaves if leaf.id not in records or records[leaf.id].state == "stopped"]
        if left:
            watch = RungWatch(place=place, gauge=gauge, records=records, scratch=scratch, on_rung=on_rung)
            with steps.timed("train"):
                model = trained_trunk(model, trunk, place, steps.counted(watch.look))
            with steps.timed("measure"):
                ended = {leaf.id: _finish(leaf, model, gauge, place, scratch / "trained", out) for leaf in left}
                records |= watch.with_curve(ended, trunk, model)
            with steps.timed("elsewhere"):
                for target in place.others if elsewhere else ():
                    other = place.gauge(model, trunk.image_size, elsewhere[target.name], target)
                    records = {n: _with(r, other, model, place, scratch, out) for n, r in records.items()}
    return [records[leaf.id].model_copy(update={"seconds": steps.seconds}) for leaf in task.leaves]


def trained_trunk(model: Any, trunk: Recipe, place: Workplace, look: OnEpoch = lambda done, total, model: None) -> Any:
    """The trained trunk; what the cache holds of its training is not done again. ``look`` is called every epoch."""
    from search.pipeline import train

    if not trunk.trains:
        return model
    deadline = time.monotonic() + 60 * place.trial_minutes if place.trial_minutes else math.inf

    def on_epoch(done: int, total: int, snapshot: Snapshot) -> None:
        if not place.visible:  # before the state of this epoch is written there
            raise gone(place.folder)
        if time.monotonic() > deadline:
            raise TimeoutError(f"over {place.trial_minutes:g} minutes after {done} of {total} epochs")
        look(done, total, snapshot)

    return train(model, trunk, place.inputs, on_epoch)


@dataclass(kw_only=True)
class RungWatch:
    """Looks at a training at its rungs: the accuracy of the averaged float model, measured on its file."""

    place: Workplace
    gauge: Gauge
    records: dict[str, Record]  # of all leaves, after they were timed; empty if they were not
    scratch: Path
    on_rung: OnRung
    curve: tuple[tuple[int, float], ...] = ()

    def look(self, done: int, total: int, snapshot: Snapshot) -> None:
        """Measures and tells, if ``done`` is a rung and the model has its final shape."""
        rungs = self.place.rungs
        if rungs is None or not self.records or done not in rungs.epochs(total):
            return
        trunk = next(iter(self.records.values())).recipe
        if done <= training_epochs(trunk.prune):
            return
        self.curve += ((done, self._accuracy(trunk, snapshot(), done)),)
        self.on_rung([self._stopped(record, done, total) for record in self.records.values()])

    def with_curve(self, ended: dict[str, Record], trunk: Recipe, model: Any) -> dict[str, Record]:
        """The final records with the whole curve, up to the float accuracy at the end."""
        if not trunk.trains or all(record.measurement is None for record in ended.values()):
            return ended
        plain = next((record for record in ended.values() if isinstance(record.recipe.quantize, Fp32)), None)
        measured = plain.measurement if plain else None
        total = total_epochs(trunk)
        last = measured.accuracy.value if measured and measured.accuracy else self._accuracy(trunk, model, total)
        curve = (*self.curve, (total, last))
        return {name: record.model_copy(update={"curve": curve}) for name, record in ended.items()}

    def _accuracy(self, trunk: Recipe, model: Any, epoch: int) -> float:
        from search.pipeline import write_leaf

        plain = trunk.model_copy(update={"quantize": Fp32()})
        folder = self.scratch / f"epoch-{epoch}" / "leaf"
        file = write_leaf(model, plain, self.place.inputs, folder=folder, form=self.place.target.format)
        return self.gauge.accuracy(file, plain).value

    def _stopped(self, record: Record, done: int, total: int) -> Record:
        if record.state != "stopped":
            return record
        reason = f"behind the others after {done} of {total} epochs"
        return record.model_copy(update={"state": "stopped", "reason": reason, "curve": self.curve})


def _screen(task: Task, model: Any, gauge: Gauge, place: Workplace, folder: Path) -> dict[str, Record]:
    """A record for every leaf, by id, timed on untrained weights: screened if it cannot join the front, failed if it
    cannot be timed, and else as if it had been stopped right away.

    None for a task without a bar, or without training: measuring it all costs no more than screening.
    """
    from search.pipeline import write_leaf

    if task.bar is None or not task.leaves[0].trains:
        return {}
    records: dict[str, Record] = {}
    for leaf in task.leaves:
        try:
            check_carried(place.target, leaf)
            file = write_leaf(model, leaf, place.inputs, folder=folder / leaf.id, form=place.target.format)
            measured = gauge.quick(file)
        except Exception as error:  # noqa: BLE001 - as in _finish
            records[leaf.id] = Record(id=leaf.id, recipe=leaf, state="failed", reason=reason_unless_fault(error, place))
            continue
        reason = why_screened(
            measured.latency, size_bytes=measured.size_bytes, size_ratio=measured.size_ratio, bar=task.bar
        )
        state = "stopped" if reason is None else "screened"
        records[leaf.id] = Record(id=leaf.id, recipe=leaf, state=state, reason=reason or "", measurement=measured)
    return screened_trunk(records, task)


def screened_trunk(records: dict[str, Record], task: Task) -> dict[str, Record]:
    """The timed ``records`` of a task's leaves, all of them screened if the trunk is not worth its training."""
    if task.bar is None or task.expected is None:
        return records
    measured = [records[leaf.id].measurement for leaf in task.leaves]
    known = [(m.latency.ratio, m.size_ratio) for m in measured if m is not None]
    if len(known) < len(measured):  # a leaf failed, so what was expected of them all says nothing
        return records
    if (reason := why_not_worth(known, task.expected, task.bar.objectives)) is None:
        return records
    left = {name: record for name, record in records.items() if record.state == "stopped"}
    return records | {n: r.model_copy(update={"state": "screened", "reason": reason}) for n, r in left.items()}


def _finish(leaf: Recipe, model: Any, gauge: Gauge, place: Workplace, folder: Path, out: Path) -> Record:
    """The leaf's file, measured and in its place; a failure is this leaf's alone."""
    from search.pipeline import write_leaf

    form = place.target.format
    try:
        file = write_leaf(model, leaf, place.inputs, folder=folder / leaf.id, form=form)
        measurement = gauge.full(file, leaf)
        artifact = write_artifact(leaf.id, file, recipe=leaf, measurement=measurement, folder=out, form=form)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base class
        return Record(id=leaf.id, recipe=leaf, state="failed", reason=reason_unless_fault(error, place))
    return Record(id=leaf.id, recipe=leaf, state="complete", artifact=artifact, measurement=measurement)


def _with(record: Record, gauge: Gauge, model: Any, place: Workplace, scratch: Path, out: Path) -> Record:
    """``record`` with what its recipe is on the target of ``gauge``; a failure there costs that target alone."""
    from search.pipeline import write_leaf

    target, leaf = gauge.target, record.recipe
    if record.state != "complete" or record.artifact is None:
        return record
    try:
        check_carried(target, leaf)
        if target.format == place.target.format:
            artifact, file = record.artifact, out / record.artifact.path
        else:
            folder = scratch / target.format / leaf.id
            file = write_leaf(model, leaf, place.inputs, folder=folder, form=target.format)
            artifact = add_artifact(record.id, file, folder=out, form=target.format)
        found = Elsewhere(artifact=artifact, measurement=gauge.full(file, leaf))
    except Exception as error:  # noqa: BLE001 - as in _finish
        found = Elsewhere(reason=reason_unless_fault(error, place))
    return record.model_copy(update={"elsewhere": {**record.elsewhere, target.name: found}})


def reason_unless_fault(error: Exception, place: Workplace) -> str:
    """What a record says of ``error``; what no recipe is to blame for is raised instead."""
    if isinstance(error, FaultError):
        raise error
    if fault := place.fault_of(error):
        raise fault from error
    traceback.print_exc()
    return reason_of(error)


def reason_of(error: Exception) -> str:
    """What went wrong, as a record has it."""
    return f"{type(error).__name__}: {error}"[:500]


class Steps:
    """The steps of one trial: how many seconds each took, and somebody who hears of them as they come."""

    def __init__(self, on_step: OnStep) -> None:
        self.seconds: dict[str, float] = {}
        self._on_step = on_step

    @contextmanager
    def timed(self, step: Step) -> Generator[None]:
        """A step: begins, and has its time when it ends."""
        self._on_step(step, 0, 0)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[step] = round(time.monotonic() - start, 3)

    def counted(self, look: OnEpoch) -> OnEpoch:
        """``look``, with each epoch of the training told before."""

        def on_epoch(done: int, total: int, snapshot: Snapshot) -> None:
            self._on_step("train", done, total)
            look(done, total, snapshot)

        return on_epoch
