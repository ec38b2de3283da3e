"""Takes picks of a finished study to other targets: their files for these, timed and validated there.

What was trained is in the study's cache, so nothing is trained. Beside each pick is what takes no search: the baseline
in float and in 8 bits. What a target does not run in a pick's precision, it gets in fp32.
"""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.contributions import INT8, picked_members, rivals
from search.environments import installed_in
from search.errors import MeasurementError, UserError
from search.measure.apart import Apart
from search.measure.parcel import pack
from search.measure.worker import environment_of
from search.results import open_study, summary
from search.runtimes.table import RUNTIMES
from search.storage.hold import held
from search.store import write_atomically
from search.study import check_files
from search.target import Target
from search.trial import reason_of, trained_trunk
from search.workplace import Workplace, check_carried
from spaces.recipe import Fp32, Recipe

FILE = "transfer.json"
Models = dict[str, tuple[str | None, Recipe]]  # a record, if it is one, and the recipe, by name


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model on one target.

    ``latency_ratio`` is to the FP32 baseline on the same target, ``ratio_to_main`` to the FP32 baseline on the study's
    main target, each with its 95 % interval, and both of a run with ``latency_batch`` pictures. ``ratio_to_main`` is
    None where the two cannot be timed side by side (``why_not_beside``). ``reason`` says why values are missing.
    """

    target: str
    model: str
    record_id: str | None
    accuracy: float | None = None
    latency_ratio: float | None = None
    latency_ratio_ci: tuple[float, float] | None = None
    ratio_to_main: float | None = None
    ratio_to_main_ci: tuple[float, float] | None = None
    latency_ms_p50: float | None = None
    latency_batch: int | None = None
    size_bytes: int | None = None
    runtime: str = ""
    host: str = ""
    reason: str = ""


def transfer(
    folder: Path, targets: Sequence[Target], picks: Sequence[str], on_row: Callable[[Row], None] = lambda row: None
) -> list[Row]:
    """Measures the baseline, its 8-bit form and the ``picks`` of the study in ``folder`` on every target.

    The rows are in ``transfer.json`` too, which is written after each, beside those of other calls.

    Returns:
        The rows of this call.

    Raises:
        UserError: there is no study, no front, or it is in use.
    """
    from search.prepare import prepare

    config, store = open_study(folder)
    check_files(config)
    names = picked_members(summary(config, store, folder), picks)
    if not names:
        raise UserError(f"the front of {folder} is empty; there is nothing to take to other targets")
    rows: list[Row] = []
    with held(folder):
        place = prepare(
            config.model_copy(update={"other_targets": ()}),
            folder,
            threads=max(1, int(config.resources.cpus_per_trial)),
        )
        place = replace(place, inputs=replace(place.inputs, may_train=False))
        models: Models = {"baseline": (None, place.baseline_recipe), INT8: (None, rivals(config.image_size)[INT8])}
        models |= {" and ".join(own): (name, store.records[name].recipe) for name, own in names.items()}
        for target in targets:
            for row in _on_target(target, models, place):
                rows.append(row)
                write_row(folder / FILE, config.name, row)
                on_row(row)
    return rows


def write_row(path: Path, study: str, row: Row) -> None:
    """Adds a row to those in the file at ``path``, or puts it in the place of that of the same target and model."""
    known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    rows = {(old["target"], old["model"]): old for old in known} | {(row.target, row.model): asdict(row)}
    write_atomically(path, json.dumps({"study": study, "rows": list(rows.values())}, indent=2) + "\n")


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| target | model | mAP50-95 or top-1 | latency | to the main target's baseline | ms | MB |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        if row.accuracy is None:
            lines.append(f"| {row.target} | {row.model} | {row.reason} | | | | |")
            continue
        assert row.latency_ratio and row.latency_ratio_ci and row.latency_ms_p50 and row.size_bytes
        to_main = _ratio(row.ratio_to_main, row.ratio_to_main_ci) if row.ratio_to_main and row.ratio_to_main_ci else "–"
        lines.append(
            f"| {row.target} | {row.model} | {row.accuracy:.3f} | {_ratio(row.latency_ratio, row.latency_ratio_ci)} "
            f"| {to_main} | {row.latency_ms_p50:.1f} "
            f"| {row.size_bytes / 1e6:.2f} |"
        )
    notes = dict.fromkeys(f"{row.target}: {row.reason}" for row in rows if row.accuracy is not None and row.reason)
    return "\n".join([*lines, *(f"\n{note}" for note in notes)])


def _ratio(value: float, ci: tuple[float, float]) -> str:
    return f"×{value:.3f} ({ci[0]:.3f}–{ci[1]:.3f})"


def _on_target(target: Target, models: Models, place: Workplace) -> Generator[Row]:
    """A row for each model; one that fails has its reason."""
    from search.training import NotTrainedError

    with tempfile.TemporaryDirectory(dir=place.folder / "cache") as name, Apart(target) as apart:
        baseline: Path | None = None
        for name_there, (record_id, own) in models.items():
            recipe = _carried(own, target)
            if recipe == place.baseline_recipe and baseline is not None:
                continue  # the 8-bit baseline, where there are no 8 bits
            model = name_there if recipe == own else f"{name_there}, in fp32"
            row = Row(target=target.name, model=model, record_id=record_id)
            try:
                file = _written(recipe, target, place, Path(name) / model.replace(" ", "-"))
                baseline = baseline or file
                yield replace(row, **_measured(file, baseline, recipe, target, place, apart))
            except NotTrainedError as error:
                yield replace(row, reason=str(error))
            except Exception as error:  # noqa: BLE001 - runtimes' exceptions have no common base class
                traceback.print_exc()
                yield replace(row, reason=reason_of(error))
                if baseline is None:  # nothing to compare with
                    return


def _carried(recipe: Recipe, target: Target) -> Recipe:
    """``recipe``, in fp32 if the target does not run its precision."""
    try:
        check_carried(target, recipe)
    except UserError:
        return recipe.model_copy(update={"quantize": Fp32()})
    return recipe


def _written(recipe: Recipe, target: Target, place: Workplace, folder: Path) -> Path:
    from search.pipeline import shape, write_leaf

    model = trained_trunk(shape(recipe, place.inputs), recipe, place)
    inputs = replace(place.inputs, opset=target.opset)
    return write_leaf(model, recipe, inputs, folder=folder / "leaf", form=target.format)


def _measured(
    file: Path, baseline: Path, recipe: Recipe, target: Target, place: Workplace, apart: Apart
) -> dict[str, Any]:
    from search.measure.accuracy import measure_accuracy

    here = apart.measure(file, baseline=baseline)
    runtime = replace(target.as_runtime, threads=place.inputs.threads)
    return {
        "accuracy": measure_accuracy(file, place.inputs.data, image_size=recipe.image_size, runtime=runtime).value,
        "latency_ratio": here.ratio,
        "latency_ratio_ci": (here.ratio_low, here.ratio_high),
        **to_main(file, place.baseline(place.target), target, place.target, apart),
        "latency_ms_p50": here.p50_ms,
        "latency_batch": here.batch,
        "size_bytes": pack(file).size,
        "runtime": here.runtime,
        "host": here.host,
    }


def to_main(file: Path, baseline: Path, target: Target, main: Target, apart: Apart) -> dict[str, Any]:
    """The fields of a row that set ``file`` on ``target`` against the main target's ``baseline``, or why none do.

    Both are timed in ``apart``, which has measured on ``target`` before.
    """
    try:
        if why := why_not_beside(main, target):
            raise MeasurementError(why)
        found = apart.measure(file, baseline=baseline, baseline_runtime=main.as_runtime)
    except MeasurementError as error:
        return {"reason": f"not set against {main.name}: {error}"}
    return {"ratio_to_main": found.ratio, "ratio_to_main_ci": (found.ratio_low, found.ratio_high)}


def why_not_beside(main: Target, target: Target) -> str:
    """Why files of ``main`` cannot be timed in the child that measures on ``target``, as they would be on ``main``.

    Pictures in a run, processors and threads have to be the same, and so has what computes: an environment of
    ``target``, which is there, may lie over the project's packages, and must not have others of the main runtime.

    Returns:
        A sentence, empty if they can.
    """
    if target.batch > 1 and main.format != "onnx":
        return f"it takes one picture at a time, not {target.batch}"
    if main.device != target.device:
        return f"it computes on a {main.device.upper()}, {target.name} on a {target.device.upper()}"
    if main.threads != target.threads:
        return f"threads are {main.threads} there, {target.threads} on {target.name}"
    if main.environment == target.environment:
        return ""
    if main.environment:
        return f"it needs {', '.join(main.environment)}, which {target.name} does not have beside it"
    own = environment_of(target.environment)
    parts = RUNTIMES[main.runtime].providers.values()
    packages = dict.fromkeys(package for part in parts for package in part.packages)
    others = [f"{package} {version}" for package in packages if (version := installed_in(own, package))]
    return f"beside {target.name} it would be run by {', '.join(others)}" if others else ""
