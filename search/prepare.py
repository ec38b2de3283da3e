"""Everything that a study needs before its first trial: its view of the data, and the baseline, measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.artifact import write_artifact
from search.cache import STAGES, StageCache
from search.data import DataSet, make_view, read_data
from search.errors import UserError
from search.measure.host import host_info, usable_cores
from search.measure.latency import measure_latency
from search.pipeline import Inputs, load_baseline
from search.record import BASELINE, Record
from search.stages.export import export_onnx
from search.store import Store, write_atomically
from search.study import BaselineTraining, Resources, StudyConfig
from search.tasks.table import KINDS, kind_of_view, view_content
from search.trial import Workplace
from spaces.recipe import Export, Recipe


def prepare(config: StudyConfig, folder: Path, store: Store, *, threads: int) -> Workplace:
    """Makes what is missing of the study folder and returns the place where its trials work.

    Args:
        config: the study.
        folder: the study folder.
        store: its records; the baseline's is added if it is not there.
        threads: CPU threads of one trial.

    Raises:
        UserError: the model or the data cannot be found.
    """
    folder = folder.resolve()
    for name in ("cache", "artifacts", "baseline"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    view = make_view(read_data(config.data), folder / "data")
    inputs = Inputs(
        baseline=_checkpoint(config, view, folder / "baseline"),
        data=view,
        seed=config.seed,
        threads=threads,
        opset=config.target.opset,
        device="0" if config.resources.gpus_per_trial else "cpu",
        cache=_stage_cache(config.resources, folder),
        train_settings=dict(config.train_settings),
    )
    host = host_info()
    write_atomically(folder / "host.json", json.dumps(asdict(host), indent=2) + "\n")
    file = folder / "baseline" / "model.onnx"
    recipe = Recipe(image_size=config.image_size, export=Export(fast_dfl=False))
    if not file.is_file():
        model = load_baseline(inputs.baseline)
        export_onnx(model, recipe.export, image_size=recipe.image_size, path=file, opset=inputs.opset)
    place = Workplace(
        folder=folder,
        inputs=inputs,
        target=config.target,
        baseline_onnx=file,
        host=host.id,
        trial_minutes=config.resources.trial_minutes,
        rungs=config.rungs,
    )
    if store.baseline is None:
        store.append([_measured_baseline(recipe, place)])
    return place


def _stage_cache(resources: Resources, folder: Path) -> StageCache:
    place = folder / "cache" / STAGES if resources.stage_cache is None else resources.stage_cache.expanduser().resolve()
    return StageCache(place, max_bytes=round(resources.stage_cache_gb * 1e9))


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
        model: Any = load_baseline(checkpoint)
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


def _measured_baseline(recipe: Recipe, place: Workplace) -> Record:
    """The uncompressed model, measured as every other is: against itself."""
    model = load_baseline(place.inputs.baseline)

    def latency(file: Path, runs: int) -> Any:
        target = place.target
        return measure_latency(
            file, place.baseline_onnx, threads=target.threads, effort=target.effort(runs), cores=target.cores
        )

    gauge = place.gauge(model, recipe.image_size, latency)
    measurement = gauge.full(place.baseline_onnx, recipe)
    artifact = write_artifact(
        BASELINE, place.baseline_onnx, recipe=recipe, measurement=measurement, folder=place.folder
    )  # fmt: skip
    return Record(id=BASELINE, recipe=recipe, state="complete", artifact=artifact, measurement=measurement)
