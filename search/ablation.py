"""Measures picked recipes with one part switched off, and simple rivals, and keeps them in ``contributions.json``.

Through the pipeline and the stage cache of the search, but no part of it: nothing is told to the sampler. A row's file
and its pick's are timed together (search/rows.py), so what the search knows of their latencies is not used. As in the
last measurement of a study, all are timed once and then all once more, and disturbed ones again. The file is written
after each timing, and a call that was cut off goes on there.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from search.again import PASSES
from search.artifact import MeasureLatency
from search.contributions import STOCK, Contributions, Timing, contributions, picked_members, rivals, timed
from search.errors import UserError
from search.final import Finals
from search.front import PICKS
from search.measure.apart import Apart
from search.record import Record
from search.results import choose, open_study, summary
from search.rows import RowBench, Wanted
from search.storage.hold import held
from search.store import Store, write_atomically
from search.study import StudyConfig, check_files
from search.trial import reason_unless_fault
from search.workplace import Workplace
from spaces.ablation import switched_off
from spaces.recipe import Export, Recipe

FILE = "contributions.json"
OnRow = Callable[[str, Record | None], None]  # (what is measured, its record or None if it was not trained)


@dataclass(kw_only=True)
class _Kept:
    """What was measured for the tables so far: records that the search does not have, by id, and all timings."""

    measured: dict[str, Record] = field(default_factory=dict[str, Record])
    timings: list[Timing] = field(default_factory=list[Timing])

    def due(self, wanted: Sequence[Wanted], rounds: int) -> list[Wanted]:
        """Those to time now: what was timed least often of what is not known yet and was not timed ``rounds`` times."""
        times = Counter((timing.pick, timing.row) for timing in self.timings)
        calm = Counter((timing.pick, timing.row) for timing in self.timings if timing.calm)
        left = [own for own in wanted if times[own.key] < rounds and calm[own.key] < PASSES]
        least = min((times[own.key] for own in left), default=0)
        return [own for own in left if times[own.key] == least]

    def add(self, record: Record, timing: Timing | None, store: Store) -> None:
        """Keeps what was found of a row; a record of the search is in ``store`` already."""
        if not _complete(store.records.get(record.id)):
            self.measured[record.id] = record
        if timing is not None:
            self.timings.append(timing)


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
        config: the study; without a last measurement of its own, every row is timed once.
        store: its records; what has one there is only timed, or taken as it is if its file is gone.
        place: where its trials work.
        latency: times a file beside the baseline's.
        picks: names of members of the front.
        train: false leaves out what would have to be trained first.
        smaller: the checkpoint of a smaller model that was trained on the same data.
        on_row: hears of every row each time that it was looked at, after the file was written.

    Raises:
        FaultError: a folder is full or gone, or nothing measures.
    """
    result, kept = summary(config, store, place.folder), _kept(place.folder, store)
    stock = why_no_smaller(_architecture(place.inputs.baseline))
    place = replace(place, inputs=replace(place.inputs, may_train=train))

    def written() -> Contributions:
        found = contributions(
            result,
            Finals(place.folder).applied(store).records,
            list(kept.measured.values()),
            kept.timings,
            image_size=config.image_size,
            objectives=config.objectives,
            stock=stock,
        )
        content = json.dumps(found.model_dump(mode="json"), indent=2)
        write_atomically(place.folder / FILE, content + "\n")
        return found

    left = _all_wanted(config, store, place, picked_members(result, picks), smaller)
    rounds = config.final.rounds if config.final else 1
    with tempfile.TemporaryDirectory(dir=place.folder / "cache") as name:
        bench = RowBench(store=store, place=place, latency=latency, folder=Path(name))
        while due := kept.due(left, rounds):
            for wanted in due:
                record, timing = _looked(wanted, bench, _known(wanted, store, kept))
                if timing is None:
                    left.remove(wanted)
                if record is not None:
                    kept.add(record, timing, store)
                    written()
                on_row(wanted.name, record and timed(record, kept.timings))
    return written()


def _kept(folder: Path, store: Store) -> _Kept:
    """What ``contributions.json`` holds; what the search has tried since is a record of the search."""
    path = folder / FILE
    if not path.is_file():
        return _Kept()
    found = Contributions.model_validate_json(path.read_text(encoding="utf-8"))
    measured = {record.id: record for record in found.measured if not _complete(store.records.get(record.id))}
    return _Kept(measured=measured, timings=list(found.timings))


def _complete(record: Record | None) -> bool:
    return record is not None and record.state == "complete"


def _known(wanted: Wanted, store: Store, kept: _Kept) -> Record | None:
    """The complete record of a row, if there is one."""
    both = (store.records.get(wanted.record_id), kept.measured.get(wanted.record_id))
    return next(filter(_complete, both), None)


def _looked(wanted: Wanted, bench: RowBench, known: Record | None) -> tuple[Record | None, Timing | None]:
    """The row's record, None if it would have to be trained and may not, and a timing, None if it can have none now.

    Raises:
        FaultError: what no row is to blame for.
    """
    from search.training import NotTrainedError

    try:
        return bench.look(wanted, known)
    except NotTrainedError:
        return known, None
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base class
        reason = reason_unless_fault(error, wanted.place)
        failed = Record(id=wanted.record_id, recipe=wanted.recipe, state="failed", reason=reason)
        return known or failed, None


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
    from search.stages.heads import load_model

    return getattr(load_model(checkpoint), "yaml", {})


def _all_wanted(
    config: StudyConfig, store: Store, place: Workplace, members: Mapping[str, list[str]], smaller: Path | None
) -> list[Wanted]:
    """What the tables have lines of: rivals first, as they take no training, then the parts of each pick."""
    wanted = [
        Wanted(name=name, record_id=recipe.id, recipe=recipe, place=place)
        for name, recipe in rivals(config.image_size).items()
    ]
    if smaller is not None:
        digest = hashlib.sha256(smaller.read_bytes()).hexdigest()[:12]
        own = replace(place, inputs=replace(place.inputs, baseline=smaller.resolve()))
        plain = Recipe(image_size=config.image_size, export=Export(fast_dfl=False))
        name = f"{STOCK}{smaller.stem}-{digest}"
        wanted.append(Wanted(name=name, record_id=name, recipe=plain, place=own))
    for record_id, names in members.items():
        pick = store.records[record_id].recipe
        wanted += [
            Wanted(name=f"{names[0]} without {part}", record_id=recipe.id, recipe=recipe, place=place, pick=record_id)
            for part, recipe in switched_off(pick, image_size=config.image_size).items()
        ]
    return wanted
