"""Makes a bundle: a pick of a study as a folder that runs elsewhere.

For the edge it needs onnxruntime, numpy and Pillow only. For the cloud it has all of that too, and a service on Ray
Serve, a Dockerfile and a model repository for Triton.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from search.bundle.card import model_card, notice
from search.bundle.code import code_files
from search.bundle.manifest import FILE, MODEL, SAMPLE, Input, Manifest, Measured, Place, Sample
from search.bundle.sample import Chosen, choose_sample, view_images
from search.bundle.sbom import NEEDED, SBOM, bill
from search.bundle.sums import write_sums, write_zip
from search.bundle.triton import REPOSITORY, write_repository
from search.errors import UserError
from search.final import Finals
from search.measure.end_to_end import open_chain
from search.measure.parcel import pack
from search.record import Measurement, Record
from search.results import choose, open_study, summary, within
from search.runtimes.session import Runtime
from search.study import Constraints, StudyConfig
from search.tasks.accuracy import further_metrics, shown

EXTRAS = {"ray": "[serve]"}  # of the packages that are needed


def make_bundle(
    folder: Path,
    *,
    pick: str,
    place: Place = "edge",
    limits: Constraints | None = None,
    out: Path | None = None,
    sample: Path | None = None,
) -> Path:
    """Writes the bundle of a pick and, beside it, the same as a ``.zip``; both appear whole.

    Args:
        folder: of the study.
        pick: a name of ``search.front.PICKS``.
        place: where it will run.
        limits: what the pick must keep, beside the constraints of the study.
        out: the folder to write; ``bundles/<pick>-<place>`` in the study, if not given.
        sample: the picture that the bundle is checked with; an image of the validation split, if not given.

    Returns:
        The bundle's folder.

    Raises:
        UserError: the study is for another runtime, has no front yet or not the file that was measured, there is
            something at ``out`` already, or a package that the bundle needs is not installed here.
    """
    packages = _packages(place)
    config, store = open_study(folder)
    _check_target(config, folder)
    result = summary(within(config, limits or Constraints()), store, folder)
    records = Finals(folder).applied(store)
    record, baseline = records.records[choose(result, pick)["record_id"]], records.baseline
    assert baseline
    model = _checked_file(record, folder)
    out = out or folder / "bundles" / f"{pick}-{place}"
    archive = out.with_name(f"{out.name}.zip")
    for path in (out, archive):
        if path.exists():
            raise UserError(f"{path} is there already; remove it, or give another folder with --out")
    images = view_images(folder)
    chosen = choose_sample(open_chain(model, Runtime()), sample, images)
    manifest = Manifest(
        place=place,
        name=f"{config.name}-{pick}",
        **_model_facts(model),
        sha256=pack(model).sha256,
        threads=config.target.threads,
        packages=packages,
        sample=Sample(source=chosen.source, answers=tuple(map(tuple, chosen.answer.tolist()))),
        measured=_measured(record, baseline, result["host"] or {}),
        study=config.name,
        pick=pick,
        record=record.id,
        recipe=record.recipe.model_dump(mode="json"),
        data={split: len(files) for split, files in images.items()},
        made_by=f"yolo-front {_own_version()}",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bundle-") as temporary:
        new, packed = Path(temporary) / out.name, Path(temporary) / archive.name
        new.mkdir()
        _fill(new, manifest, model, chosen)
        write_zip(new, packed)
        os.replace(packed, archive)
        os.replace(new, out)
    return out


def _packages(place: Place) -> dict[str, str]:
    """The versions here of what the code of a bundle imports: those that it is tested with."""
    try:
        return {name: metadata.version(name) for name in NEEDED[place]}
    except metadata.PackageNotFoundError as error:
        raise UserError(f"a bundle for the {place} needs {error.name}: pip install -e '.[serve]'") from error


def _check_target(config: StudyConfig, folder: Path) -> None:
    target = config.target
    if (target.runtime, target.provider) != ("onnxruntime", "cpu"):
        raise UserError(
            f"{folder} was searched for {target.name} ({target.runtime} {target.provider}), and a bundle runs its "
            "model with ONNX Runtime on the CPU, for which nothing was measured; bundle a study of the target "
            "onnxruntime-cpu"
        )


def _checked_file(record: Record, folder: Path) -> Path:
    """The record's file, if it is the one that was measured."""
    assert record.artifact
    path = folder / record.artifact.path
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise UserError(f"{path} is missing: the study folder is not complete; copy it with its artifacts")
    if pack(path).sha256 != record.artifact.sha256:
        raise UserError(f"{path} is not the file that was measured (its checksum differs); restore it, or pick another")
    return path


def _model_facts(model: Path) -> dict[str, Any]:
    """Task, labels and input, from what Ultralytics wrote into the file."""
    import onnx

    content = onnx.load(model)
    told = {entry.key: entry.value for entry in content.metadata_props}
    try:
        names: dict[int, str] = ast.literal_eval(told["names"])
        labels = tuple(str(names[number]) for number in range(len(names)))
    except (KeyError, ValueError, SyntaxError) as error:
        raise UserError(f"{model} does not say the names of its classes; export it again") from error
    task = told.get("task", "detect")
    *_, height, width = (size.dim_value for size in content.graph.input[0].type.tensor_type.shape.dim)
    fit = "letterbox" if task == "detect" else "centre crop"
    return {"task": task, "labels": labels, "input": Input(height=height, width=width, fit=fit)}


def _measured(record: Record, baseline: Record, machine: dict[str, Any]) -> Measured:
    measurement, reference = record.measurement, baseline.measurement
    assert measurement and measurement.accuracy and reference and reference.accuracy
    accuracy, latency, host = measurement.accuracy, measurement.latency, _host(measurement)
    interval = None if accuracy.low is None or accuracy.high is None else (accuracy.low, accuracy.high)
    return Measured(
        metric=accuracy.metric,
        accuracy=accuracy.value,
        accuracy_ci=interval,
        baseline_accuracy=reference.accuracy.value,
        images=accuracy.images,
        further=further_metrics(accuracy),
        test=shown(measurement.test) if measurement.test else None,
        latency_ms_p50=latency.p50_ms,
        latency_ms_p95=latency.p95_ms,
        latency_batch=latency.batch,
        latency_ratio=latency.ratio,
        latency_ratio_ci=(latency.ratio_low, latency.ratio_high),
        waiting=latency.waiting,
        runs=latency.runs,
        clock=latency.clock,
        runtime=latency.runtime,
        host=host,
        machine=machine if machine.get("id") == host else {},
        size_bytes=measurement.size_bytes,
        size_ratio=measurement.size_ratio,
        parameters=measurement.parameters,
        flops=measurement.flops,
    )


def _host(measurement: Measurement) -> str:
    return measurement.latency.host or measurement.host  # records of old have it beside the latency


def _own_version() -> str:
    try:
        return metadata.version("yolo-front")
    except metadata.PackageNotFoundError:  # run from its folder, without an install
        return "from source"


def _fill(folder: Path, manifest: Manifest, model: Path, chosen: Chosen) -> None:
    shutil.copyfile(model, folder / MODEL)
    chosen.image.save(folder / SAMPLE, optimize=True)
    for name, content in code_files(manifest.place).items():
        (folder / name).write_bytes(content)
    if manifest.place == "cloud":
        write_repository(model, folder / REPOSITORY, threads=manifest.threads)
    texts = {
        FILE: manifest.model_dump_json(indent=2) + "\n",
        "README.md": model_card(manifest),
        "NOTICE.md": notice(manifest),
        "LICENSE": _licence_text(),
        "requirements.txt": "".join(
            f"{name}{EXTRAS.get(name, '')}=={version}\n" for name, version in manifest.packages.items()
        ),
        SBOM: json.dumps(bill(manifest), indent=2) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_sums(folder)


def _licence_text() -> str:
    """The AGPL-3.0, as Ultralytics' package has it."""
    text = metadata.distribution("ultralytics").read_text("licenses/LICENSE")
    assert text and "GNU AFFERO GENERAL PUBLIC LICENSE" in text
    return text
