"""Replays one recipe on a model: the same pipeline and the same measurements as in a search, screening nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml
from pydantic import ValidationError

from search.data import read_data
from search.errors import UserError
from search.formats import check_format
from search.measure.apart import Apart
from search.record import Record
from search.study import StudyConfig
from search.target import Target
from search.tasks.table import KINDS, check_recipe
from search.trial import Task, trained_trunk, try_recipe
from search.workplace import Workplace
from spaces.recipe import Recipe


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises UserError if it is missing or refused."""
    if not path.is_file():
        raise UserError(f"there is no recipe {path}; a study has one beside each artifact")
    try:
        return Recipe.from_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"]) or "recipe"
        raise UserError(f"{path}: {key}: {first['msg']}; got {first['input']!r}") from error


def apply_recipe(
    recipe: Recipe, *, model: str, data: Path, out: Path, seed: int, threads: int, formats: Sequence[str] = ()
) -> Record:  # fmt: skip
    """Writes ``model.onnx``, ``recipe.yaml`` and ``measurement.json`` to ``out`` and returns the record.

    The latency ratio is to the plain FP32 export of ``model`` at the recipe's own image size. The same model in other
    ``formats``, which are not measured, is written beside the ONNX file; if that fails, the ONNX file stays.

    Raises:
        UserError: a file is missing or refused, a format cannot be written, or ``out`` is there already.
    """
    if out.exists():
        raise UserError(f"{out} is there already; choose another folder for --out")
    import torch

    from search.prepare import check_model, prepare

    for name in formats:
        check_format(name, recipe.quantize.kind, gpu=torch.cuda.is_available())

    config = StudyConfig(
        name="apply", model=model, data=data, image_size=recipe.image_size, seed=seed, target=Target()
    )  # fmt: skip
    check_recipe(recipe, KINDS[read_data(data).task])
    check_model(config)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary)
        place = prepare(config, folder, threads=threads)

        with Apart(place.target) as apart:
            latency = partial(apart.measure, baseline=place.baseline(place.target))
            [record] = try_recipe(Task(leaves=(recipe,)), place, latency)
        if record.artifact is None:
            raise UserError(f"the recipe failed: {record.reason}")
        try:
            _write_formats(recipe, formats, place, folder / "artifacts" / record.id)
        finally:
            shutil.move(folder / "artifacts" / record.id, out)
    return record


def _write_formats(recipe: Recipe, formats: Sequence[str], place: Workplace, folder: Path) -> None:
    """Writes the model of the trial that is over, which is in the study's cache, in other formats than ONNX."""
    from search.pipeline import shape, write_leaf

    if others := [name for name in formats if name != "onnx"]:
        model = trained_trunk(shape(recipe, place.inputs), recipe, place)
        for name in others:
            write_leaf(model, recipe, place.inputs, folder=folder, form=name)
