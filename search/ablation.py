"""Measures picked recipes with one part switched off, and simple rivals, and keeps them in ``contributions.json``.

Through the pipeline and the stage cache of the search, but no part of it: nothing is told to the sampler. Picks, and
rows that the search has as records, are timed again from their files, so that one way of timing at one time stands
behind a table. The file is written after each row, and no row is measured twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from search.artifact import MeasureLatency
from search.contributions import STOCK, Contributions, contributions, picked_members, rivals
from search.errors import MeasurementError, UserError
from search.final import Finals
from search.front import PICKS
from search.measure.apart import Apart
from search.record import Record
from search.results import choose, open_study, summary
from search.storage.hold import held
from search.store import Store, write_atomically
from search.study import StudyConfig, check_files
from search.trial import reason_unless_fault, trained_trunk
from search.workplace import Workplace
from spaces.ablation import switched_off
from spaces.recipe import Export, Recipe

FILE = "contributions.json"
OnRow = Callable[[str, Record | None], None]  # (what is measured, its record or None if it was not trained)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    name: str
    record_id: str
    recipe: Recipe
    place: Workplace


def measure_study(
    folder: Path, picks: Sequence[str], *, train: bool, smaller: Path | None = None, on_row: OnRow
) -> Contributions:
    """``measure_contributions`` for the study in ``folder``, and its report written anew; only ``picks`` are returned.

    Raises:
        UserError: there is no study, no front or no such pick, it is in use, or ``smaller`` does not fit its data.
    """
    from search.prepare import check_model, prepare
    from search.report.markdown import write_report

    if unknown := [name for name in picks if name not in PICKS]:
        raise UserError(f"--pick {unknown[0]}: allowed are {', '.join(PICKS)}")
    config, store = open_study(folder)
    result = summary(config, store, folder)
    for name in picks:
        choose(result, name)  # refuses an empty front
    check_files(config)
    if smaller is not None:
        check_model(config.model_copy(update={"model": str(smaller)}))
    with held(folder):
        place = prepare(config, folder, threads=max(1, int(config.resources.cpus_per_trial)))
        with Apart(place.target) as apart:
            latency = partial(apart.measure, baseline=place.baseline(place.target))
            found = measure_contributions(
                config, store, place, latency, picks=picks, train=train, smaller=smaller, on_row=on_row
            )
        write_report(config, store, result, folder)
    wanted = tuple(pick for pick in found.picks if set(pick.picks) & set(picks))
    return found.model_copy(update={"picks": wanted})


def measure_contributions(
    config: StudyConfig,
    store: Store,
    place: Workplace,
    latency: MeasureLatency,
    *,
    picks: Sequence[str] = PICKS,
    train: bool = True,
    smaller: Path | None = None,
    on_row: OnRow = lambda name, record: None,
) -> Contributions:
    """Measures what is missing of the rivals and of the parts of ``picks``, and returns the tables of all picks.

    A row that fails is kept with its reason, costs no other, and is tried again by the next call. What no row is to
    blame for is raised.

    Args:
        config: the study.
        store: its records; what has one there is only timed again, or taken as it is if its file is gone.
        place: where its trials work.
        latency: times a file beside the baseline's.
        picks: names of members of the front.
        train: false leaves out what would have to be trained first.
        smaller: the checkpoint of a smaller model that was trained on the same data.
        on_row: hears of every row that was looked at, after the file was written.

    Raises:
        FaultError: a folder is full or gone, or nothing measures.
    """
    result = summary(config, store, place.folder)
    measured = {record.id: record for record in read_measured(place.folder)}
    done = {record.id for record in measured.values() if record.state == "complete"}
    stock = why_no_smaller(_architecture(place.inputs.baseline))
    place = replace(place, inputs=replace(place.inputs, may_train=train))

    def written() -> Contributions:
        found = contributions(
            result,
            Finals(place.folder).applied(store).records,
            list(measured.values()),
            image_size=config.image_size,
            objectives=config.objectives,
            stock=stock,
        )
        content = json.dumps(found.model_dump(mode="json"), indent=2)
        write_atomically(place.folder / FILE, content + "\n")
        return found

    for wanted in _all_wanted(config, store, place, picked_members(result, picks), smaller):
        if wanted.record_id in done:
            continue
        known = store.records.get(wanted.record_id)
        if known is not None and known.state == "complete":
            record = _timed_again(known, place, latency)
        else:
            record = _measured(wanted, latency)
        if record is not None:
            measured[record.id] = record
            done |= {record.id} if record.state == "complete" else set()
            written()
        on_row(wanted.name, record)
    return written()


def read_measured(folder: Path) -> list[Record]:
    """The records that were measured for the tables of the study in ``folder``."""
    path = folder / FILE
    if not path.is_file():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Record.model_validate(record) for record in content["measured"]]


def why_no_smaller(architecture: Mapping[str, Any]) -> str:
    """Why no smaller stock model was measured; ``architecture`` is Ultralytics' description of a model."""
    scales, scale = list(architecture.get("scales") or ()), architecture.get("scale")
    own = re.fullmatch(r"(yolov?\d+)[a-z]?(.*)", Path(architecture.get("yaml_file") or "").stem)
    if own is None or scale not in scales:
        return "the model is no stock model"
    if scale == scales[0]:
        return f"there is none: {own[1]}{scale}{own[2]} is the smallest of its family"
    name = f"{own[1]}{scales[scales.index(scale) - 1]}{own[2]}"
    return f"train {name} on the same data, then run `python -m search contributions DIR --smaller {name}.pt`"


def _architecture(checkpoint: Path) -> Mapping[str, Any]:
    from search.pipeline import load_baseline

    return getattr(load_baseline(checkpoint), "yaml", {})


def _all_wanted(
    config: StudyConfig, store: Store, place: Workplace, members: Mapping[str, list[str]], smaller: Path | None
) -> list[_Wanted]:
    """What the tables have lines of: rivals first, as they take no training, then each pick and its parts."""
    wanted = [
        _Wanted(name=name, record_id=recipe.id, recipe=recipe, place=place)
        for name, recipe in rivals(config.image_size).items()
    ]
    if smaller is not None:
        digest = hashlib.sha256(smaller.read_bytes()).hexdigest()[:12]
        own = replace(place, inputs=replace(place.inputs, baseline=smaller.resolve()))
        plain = Recipe(image_size=config.image_size, export=Export(fast_dfl=False))
        name = f"{STOCK}{smaller.stem}-{digest}"
        wanted.append(_Wanted(name=name, record_id=name, recipe=plain, place=own))
    for record_id, names in members.items():
        pick = store.records[record_id].recipe
        wanted.append(_Wanted(name=names[0], record_id=record_id, recipe=pick, place=place))
        wanted += [
            _Wanted(name=f"{names[0]} without {part}", record_id=recipe.id, recipe=recipe, place=place)
            for part, recipe in switched_off(pick, image_size=config.image_size).items()
        ]
    return wanted


def _measured(wanted: _Wanted, latency: MeasureLatency) -> Record | None:
    """The record of one recipe, None if it would have to be trained and may not."""
    from search.pipeline import shape, write_leaf
    from search.training import NotTrainedError

    recipe, place = wanted.recipe, wanted.place
    record = Record(id=wanted.record_id, recipe=recipe, state="complete")
    try:
        with tempfile.TemporaryDirectory(dir=place.folder / "cache") as name:
            model = shape(recipe, place.inputs)
            gauge = place.gauge(model, recipe.image_size, latency)
            trained = trained_trunk(model, recipe, place)
            file = write_leaf(trained, recipe, place.inputs, folder=Path(name) / "leaf", form=place.target.format)
            return record.model_copy(update={"measurement": gauge.full(file, recipe)})
    except NotTrainedError:
        return None
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base class
        return record.model_copy(update={"state": "failed", "reason": reason_unless_fault(error, place)})


def _timed_again(record: Record, place: Workplace, latency: MeasureLatency) -> Record:
    """A complete record of the search with a latency of now; as it is if its file is gone or cannot be timed."""
    assert record.measurement is not None and record.artifact is not None
    file = place.folder / record.artifact.path
    if not file.exists():
        return record
    try:
        now = latency(file, place.target.effort())
    except MeasurementError:
        traceback.print_exc()
        return record
    measured = record.measurement.model_copy(update={"latency": now, "host": now.host})
    return record.model_copy(update={"measurement": measured})
