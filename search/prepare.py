"""Everything that a study needs before its first trial: its view of the data, and the baseline."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.artifact import MeasureLatency, add_artifact, write_artifact
from search.cache import STAGES, StageCache
from search.data import DataSet, data_digest, make_view, read_data
from search.errors import UserError
from search.measure.host import usable_cores
from search.pipeline import Inputs, write_leaf
from search.record import BASELINE, Elsewhere, Record
from search.stages.heads import load_model
from search.storage.urls import below, is_url
from search.storage.working import url_of
from search.store import write_atomically
from search.study import BaselineTraining, Resources, StudyConfig
from search.tasks.table import KINDS, kind_of_view, view_content
from search.workplace import Workplace
from spaces.recipe import Export, Recipe


def prepare(config: StudyConfig, folder: Path, *, threads: int) -> Workplace:
    """Makes what is missing of the study folder and returns the place where its trials work.

    Args:
        config: the study.
        folder: the study folder.
        threads: CPU threads of one trial.

    Raises:
        UserError: the model or the data cannot be found.
    """
    folder = folder.resolve()
    for name in ("cache", "artifacts", "baseline"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    view, digest = _view(config, folder)
    inputs = Inputs(
        baseline=_checkpoint(config, view, folder / "baseline"),
        data=view,
        seed=config.seed,
        threads=threads,
        processes=config.resources.processes_per_trial,
        opset=config.target.opset,
        device=config.resources.torch_device,
        cache=_stage_cache(config.resources, folder),
        data_digest=digest,
        train_settings=dict(config.train_settings),
    )
    recipe = Recipe(image_size=config.image_size, export=Export(fast_dfl=False))
    return Workplace(
        folder=folder,
        inputs=inputs,
        target=config.target,
        baseline_recipe=recipe,
        others=config.other_targets,
        baselines={
            form: _baseline_file(form, recipe, inputs, folder / "baseline")
            for form in dict.fromkeys(target.format for target in config.targets)
        },
        trial_minutes=config.resources.trial_minutes,
        rungs=config.rungs,
    )


def _view(config: StudyConfig, folder: Path) -> tuple[Path, str]:
    """The study's view of the data, and their digest, which is kept: a finished view does not change.

    Raises:
        UserError: the view had to be made on another machine, and the data there are others.
    """
    note, made = folder / "data.json", (folder / "data" / "data.yaml").is_file()
    view = make_view(read_data(config.data), folder / "data")
    known = json.loads(note.read_text(encoding="utf-8"))["digest"] if note.is_file() else None
    if made and known is not None:
        return view, known
    digest = data_digest(view)
    if known not in (None, digest):
        shutil.rmtree(view.parent)  # it would be taken for the right one the next time
        raise UserError(f"data: {config.data} is not the data that this study began with; give it the same here")
    write_atomically(note, json.dumps({"digest": digest}) + "\n")
    return view, digest


def _baseline_file(form: str, recipe: Recipe, inputs: Inputs, folder: Path) -> Path:
    """The uncompressed model in a format, written if it is not there; all but ONNX in folders of their own."""
    place = folder if form == "onnx" else folder / form
    found = [
        entry for entry in (place.iterdir() if place.is_dir() else ()) if form != "onnx" or entry.suffix == ".onnx"
    ]
    if found:
        return found[0]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        new = write_leaf(load_model(inputs.baseline), recipe, inputs, folder=Path(name) / "leaf", form=form)
        place.mkdir(exist_ok=True)
        return new.replace(place / new.name)


def _stage_cache(resources: Resources, folder: Path) -> StageCache:
    """The study's own, or a shared one; of a study behind a URL it is behind that URL too, for other machines."""
    given, place, study = resources.stage_cache, folder / "cache" / STAGES, url_of(folder)
    url = below(study, "cache", STAGES) if study is not None else None
    if given is not None and is_url(given):
        url = given
    elif given is not None:
        place, url = Path(given).expanduser().resolve(), None
    return StageCache(place, max_bytes=round(resources.stage_cache_gb * 1e9), url=url)


def check_model(config: StudyConfig) -> None:
    """Refuses a checkpoint that is missing, cannot be loaded or does not fit the data, before any work starts.

    Raises:
        UserError: which of these, and what to do.
    """
    data = read_data(config.data)
    if Path(config.model).suffix == ".pt":
        _check_fit(_fetched(config.model), data)
    else:
        _check_task(config.model, _architecture_task(config.model), data)


def _checkpoint(config: StudyConfig, view: Path, folder: Path) -> Path:
    """The baseline's checkpoint: the user's own, or one trained here from their architecture."""
    if Path(config.model).suffix == ".pt":
        return _fetched(config.model)
    path = folder / "model.pt"
    if not path.is_file():
        train_baseline(config, view, path)
    return path


def _fetched(model: str) -> Path:
    """A checkpoint on disk, fetched by Ultralytics if it is one of its names."""
    from ultralytics.utils.downloads import attempt_download_asset

    if Path(model).is_file():
        return Path(model).resolve()
    try:
        path = Path(attempt_download_asset(model))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model: {model} is not here and could not be fetched ({error}); give a path to a .pt"
        ) from error
    if not path.is_file():
        raise UserError(f"model: {model} is not here, and there is no network to fetch it; give a path to a .pt file")
    return path.resolve()


def train_baseline(config: StudyConfig, view: Path, path: Path) -> None:
    """Trains the architecture ``config.model`` from scratch and writes a checkpoint that Ultralytics loads."""
    import torch

    from search.stages.finetune import finetune
    from spaces.recipe import Finetune, NoDistill

    settings: BaselineTraining = config.baseline
    kind = kind_of_view(view)
    torch.manual_seed(config.seed)
    model = kind.build(config.model, len(view_content(view)["names"]))
    trained = finetune(
        model,
        Finetune(epochs=settings.epochs, batch=settings.batch, lr=settings.lr, schedule="cosine"),
        NoDistill(),
        data=view,
        image_size=config.image_size,
        teacher=path,
        seed=config.seed,
        threads=usable_cores(),
        extra=dict(config.train_settings),
    )
    arguments: dict[str, Any] = {"imgsz": config.image_size, "task": kind.name, "model": config.model}
    temporary = path.with_suffix(".tmp")
    torch.save({"model": trained, "train_args": arguments, "epoch": -1}, temporary)
    temporary.replace(path)


def _architecture_task(model: str) -> str:
    from ultralytics.nn.tasks import guess_model_task, yaml_model_load

    try:
        return str(guess_model_task(yaml_model_load(model)))
    except Exception as error:
        raise UserError(f"model: {model} is no architecture file that Ultralytics can read: {error}") from error


def _check_task(model: str, task: str, data: DataSet) -> None:
    if task not in KINDS:
        known = " and ".join(kind.noun for kind in KINDS.values())
        raise UserError(f"model: {model} is a {task} model; only {known} are supported")
    if task != data.task:
        raise UserError(
            f"model: {model} is for {KINDS[task].noun}, but {data.source} holds data for {KINDS[data.task].noun}: "
            "a data.yaml is for detection, a folder with train/<class>/ and val/<class>/ for classification"
        )


def _check_fit(checkpoint: Path, data: DataSet) -> None:
    try:
        model: Any = load_model(checkpoint)
    except Exception as error:
        raise UserError(f"model: {checkpoint} is no checkpoint that Ultralytics can load: {error}") from error
    _check_task(str(checkpoint), getattr(model, "task", "detect"), data)
    if len(model.names) != len(data.names):
        raise UserError(
            f"model: {checkpoint} knows {len(model.names)} classes, but {data.source} has {len(data.names)}; "
            "train the model on this data first, or give its .yaml architecture"
        )
    if mixed := KINDS[data.task].mixed_up(model.names, data.names):
        raise UserError(f"model: {checkpoint} and {data.source} disagree on the classes: {mixed}")


def measured_baseline(place: Workplace, latency_on: Mapping[str, MeasureLatency]) -> Record:
    """The record of the uncompressed model, measured as every other is: against itself, on every target.

    ``latency_on`` times a file beside the baseline's, by the target's name.
    """
    recipe = place.baseline_recipe
    model = load_model(place.inputs.baseline)
    found: dict[str, Elsewhere] = {}
    for target in (place.target, *place.others):
        file = place.baseline(target)
        measurement = place.gauge(model, recipe.image_size, latency_on[target.name], target).full(file, recipe)
        if not found:
            artifact = write_artifact(
                BASELINE, file, recipe=recipe, measurement=measurement, folder=place.folder, form=target.format
            )
        else:
            artifact = add_artifact(BASELINE, file, folder=place.folder, form=target.format)
        found[target.name] = Elsewhere(artifact=artifact, measurement=measurement)
    main = found.pop(place.target.name)
    return Record(
        id=BASELINE,
        recipe=recipe,
        state="complete",
        artifact=main.artifact,
        measurement=main.measurement,
        elsewhere=found,
    )
