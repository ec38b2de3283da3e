"""A study as TensorBoard has it: event files made from its records alone, so for old studies too.

A trial is a run with its learning curve; each of its leaves is a run below it, with what was measured on its file and,
for the HParams page, its recipe as parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from search.record import Record
from search.store import Store

FOLDER = "tensorboard"
DONE = ".done"  # in the folder of a trial whose files are whole


def write_events(store: Store, out: Path) -> int:
    """Writes the trials that are not in ``out`` yet and returns how many that were."""
    written = 0
    for trunk, leaves in groupby(store.searched, key=lambda record: record.recipe.trunk_id):
        place = out / trunk
        if not (place / DONE).exists():
            _write_trial(list(leaves), place)
            written += 1
    return written


def _write_trial(leaves: list[Record], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for old in place.rglob("events.out.tfevents.*"):  # of a call that was cut off
        old.unlink()
    curve = next((leaf.curve for leaf in leaves if leaf.curve), ())
    if curve:
        with _writer(place) as writer:
            for epochs, accuracy in curve:
                writer.add_scalar("accuracy", accuracy, global_step=epochs, walltime=leaves[0].at)
    for leaf in leaves:
        _write_leaf(leaf, place / f"{leaf.recipe.quantize.kind}-{leaf.id}")
    (place / DONE).touch()


def _write_leaf(record: Record, place: Path) -> None:
    from tensorboardX.summary import hparams

    values = results(record)
    step = record.curve[-1][0] if record.curve else 0
    with _writer(place) as writer:
        for summary in hparams(parameters(record), values):
            writer.file_writer.add_summary(summary, walltime=record.at)
        for name, value in values.items():
            writer.add_scalar(name, value, global_step=step, walltime=record.at)


def results(record: Record) -> dict[str, float]:
    """What was measured on a record's file; a record that was not trained has no accuracy."""
    measured = record.measurement
    if measured is None:
        return {}
    found = {"final/latency_ratio": measured.latency.ratio, "final/latency_ms": measured.latency.p50_ms}
    found |= {"final/size_ratio": measured.size_ratio, "final/size_mb": measured.size_bytes / 1e6}
    if record.state == "complete" and measured.accuracy:
        found["final/accuracy"] = measured.accuracy.value
    return found


def parameters(record: Record) -> dict[str, str | float | bool]:
    """The recipe as flat parameters, ``prune.ratio`` and the like, and how the record ended."""
    return {"state": record.state, **dict(_flat(record.recipe.model_dump(mode="json")))}


def _flat(content: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str | float | bool]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, (str, int, float, bool)) else str(value)


def _writer(place: Path) -> Any:
    from tensorboardX import SummaryWriter  # comes with ray[tune]; only the viewer is an extra

    return SummaryWriter(logdir=str(place))
