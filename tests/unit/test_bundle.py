"""Bundles: what is in them, that nothing in them can change unseen, and how figures are compared with the card's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from search.__main__ import app
from search.bundle.make import make_bundle
from search.bundle.manifest import read_manifest
from search.bundle.sums import wrong_sums
from search.bundle.verify import compare_accuracy, compare_latency, verify_bundle
from search.errors import UserError
from search.runtimes.answers import differences
from search.stages.export import export_onnx
from spaces.recipe import Export
from tests.bundles import make_study, picture
from tests.fakes import make_baseline
from tests.tiny import CLASSES, SIZE, files_below, sha256, tiny_model

FILES = {
    *("run.py", "benchmark.py", "model.py", "frames.py", "drawing.py"),
    *("detection.py", "classification.py", "answers.py"),
    *("model.onnx", "bundle.json", "sample.png", "requirements.txt", "sbom.cdx.json"),
    *("README.md", "NOTICE.md", "LICENSE", "SHA256SUMS"),
}

# What CycloneDX 1.6 asks of the parts that are used here; made by hand from its schema.
_HASH = {
    "required": ["alg", "content"],
    "properties": {"alg": {"enum": ["SHA-256"]}, "content": {"pattern": "^[a-fA-F0-9]{64}$"}},
    "additionalProperties": False,
}
_LICENCES = {
    "type": "array",
    "items": {
        "oneOf": [
            {"required": ["license"], "properties": {"license": {"required": ["id"]}}},
            {"required": ["expression"], "properties": {"expression": {"type": "string"}}},
        ]
    },
}
_COMPONENT = {
    "type": "object",
    "required": ["type", "name"],
    "properties": {
        "type": {"enum": ["application", "library", "machine-learning-model"]},
        "bom-ref": {"type": "string", "minLength": 1},
        "name": {"type": "string"},
        "version": {"type": "string"},
        "purl": {"type": "string", "pattern": r"^pkg:pypi/[a-z0-9.-]+@[^@]+$"},
        "hashes": {"type": "array", "items": _HASH},
        "licenses": _LICENCES,
        "modelCard": {
            "properties": {
                "modelParameters": {"properties": {"task": {"type": "string"}}},
                "quantitativeAnalysis": {
                    "properties": {
                        "performanceMetrics": {
                            "items": {
                                "properties": {name: {"type": "string"} for name in ("type", "value", "slice")}
                                | {
                                    "confidenceInterval": {
                                        "properties": {end: {"type": "string"} for end in ("lowerBound", "upperBound")},
                                        "additionalProperties": False,
                                    }
                                },
                                "additionalProperties": False,
                            }
                        }
                    },
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
CYCLONEDX: dict[str, Any] = {
    "type": "object",
    "required": ["bomFormat", "specVersion"],
    "properties": {
        "$schema": {"enum": ["http://cyclonedx.org/schema/bom-1.6.schema.json"]},
        "bomFormat": {"enum": ["CycloneDX"]},
        "specVersion": {"enum": ["1.6"]},
        "serialNumber": {"pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
        "version": {"type": "integer", "minimum": 1},
        "metadata": {"properties": {"component": _COMPONENT}, "additionalProperties": False},
        "components": {"type": "array", "items": _COMPONENT, "uniqueItems": True},
        "dependencies": {
            "items": {
                "required": ["ref"],
                "properties": {"ref": {"type": "string"}, "dependsOn": {"items": {"type": "string"}}},
                "additionalProperties": False,
            }
        },
    },
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return export_onnx(tiny_model(), Export(), image_size=SIZE, path=path)


@pytest.fixture(scope="module")
def study(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"), model, size=SIZE)


@pytest.fixture(scope="module")
def bundle(study: Path) -> Path:
    return make_bundle(study, pick="recommended")


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_every_file_is_there_and_sha256sum_agrees_with_all(bundle: Path, study: Path) -> None:
    assert set(files_below(bundle)) == FILES
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True, check=True)
    assert {line.removesuffix(": OK") for line in done.stdout.splitlines()} == FILES - {"SHA256SUMS"}
    assert bundle == study / "bundles" / "recommended-edge"
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["recommended-edge", "recommended-edge.zip"]


def test_the_steps_around_the_model_are_the_files_that_measure(bundle: Path) -> None:
    import search.runtimes.answers
    import search.runtimes.classification
    import search.runtimes.detection

    for module in (search.runtimes.answers, search.runtimes.classification, search.runtimes.detection):
        path = Path(str(module.__file__))
        assert (bundle / path.name).read_bytes() == path.read_bytes()


def test_the_same_study_gives_the_same_archive_with_the_same_files(bundle: Path, study: Path, tmp_path: Path) -> None:
    again = make_bundle(study, pick="recommended", out=tmp_path / "recommended-edge")
    first, second = (path.with_name(f"{path.name}.zip") for path in (bundle, again))
    assert sha256(first) == sha256(second)
    with zipfile.ZipFile(first) as archive:
        archive.extractall(tmp_path / "unpacked")
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert files_below(tmp_path / "unpacked" / "recommended-edge") == files_below(bundle)


def test_the_manifest_says_what_the_file_and_the_records_say(bundle: Path, study: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.sha256 == sha256(bundle / "model.onnx")
    assert manifest.labels == tuple(str(label) for label in range(CLASSES))
    assert (manifest.input.height, manifest.input.width, manifest.task) == (SIZE, SIZE, "detect")
    assert (manifest.measured.accuracy, manifest.measured.latency_ratio) == (0.6, 0.4)
    assert (manifest.measured.latency_ms_p50, manifest.measured.host) == (4.0, "host")
    assert manifest.measured.machine["cpu"] == "a processor"
    assert manifest.data == {"train": 1, "val": 2}
    assert len(manifest.sample.answers) > 0
    assert manifest.sample.source == "an image of the study's validation split"


def test_the_card_has_the_measured_figures_and_the_notice_says_agpl(bundle: Path) -> None:
    card, notice = ((bundle / name).read_text() for name in ("README.md", "NOTICE.md"))
    for words in (
        "mAP50-95 0.600",
        "×0.400 (95 %: 0.396 to 0.404)",
        "4.00 ms",
        "2.00 MB",
        "64px · int8",
        "a processor",
    ):
        assert words in card
    assert "under the AGPL-3.0" in card and "under the AGPL-3.0" in notice
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in (bundle / "LICENSE").read_text()


def test_the_bill_of_materials_keeps_to_cyclonedx(bundle: Path) -> None:
    bill = json.loads((bundle / "sbom.cdx.json").read_text())
    jsonschema.Draft7Validator(CYCLONEDX).validate(bill)
    model, *packages = bill["components"]
    assert model["hashes"][0]["content"] == sha256(bundle / "model.onnx")
    pinned = (bundle / "requirements.txt").read_text().split()
    assert sorted(f"{part['name']}=={part['version']}" for part in packages) == sorted(pinned)
    refs = [bill["metadata"]["component"]["bom-ref"], *(part["bom-ref"] for part in bill["components"])]
    assert [line["ref"] for line in bill["dependencies"]] == refs and len(set(refs)) == 5
    broken = bill | {"components": [model | {"type": "model"}]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(CYCLONEDX).validate(broken)


def test_a_bundle_as_it_was_made_holds(copy: Path) -> None:
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "run.cpython-311.pyc").touch()  # as running it leaves behind
    verdict = verify_bundle(copy, seconds=0.5)
    assert verdict.holds
    found = {check.name: check.holds for check in verdict.checks}
    assert found == {"checksums": True, "runner": True, "answers": True, "latency": None}  # made up on another host


@pytest.mark.parametrize("name", sorted(FILES - {"SHA256SUMS"}))
def test_a_change_of_any_file_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert wrong_sums(copy) == [f"{name} was changed"]
    (copy / name).unlink()
    assert wrong_sums(copy) == [f"{name} is missing"]


def test_a_file_that_was_added_is_found_and_the_exit_code_says_so(copy: Path) -> None:
    (copy / "numpy.py").write_text("print('not numpy')")
    done = CliRunner().invoke(app, ["verify", str(copy), "--json"])
    verdict = json.loads(done.output)
    assert (done.exit_code, verdict["holds"]) == (1, False)
    assert [check["name"] for check in verdict["checks"]] == ["checksums"]  # nothing else was opened
    assert "numpy.py is not in SHA256SUMS" in verdict["checks"][0]["text"]


def test_another_model_under_right_checksums_is_found_by_its_answers(copy: Path) -> None:
    content = onnx.load(copy / "model.onnx")
    bias = next(tensor for tensor in content.graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] == CLASSES)
    bias.CopyFrom(onnx.numpy_helper.from_array(1.5 * onnx.numpy_helper.to_array(bias), bias.name))
    onnx.save(content, copy / "model.onnx")
    names = sorted(FILES - {"SHA256SUMS"})
    (copy / "SHA256SUMS").write_text("".join(f"{sha256(copy / name)}  {name}\n" for name in names))
    verdict = verify_bundle(copy, seconds=0.5)
    assert [check.name for check in verdict.checks if check.holds is False] == ["answers"]


def test_milliseconds_are_compared_on_the_same_host_only_and_without_waiting(bundle: Path) -> None:
    card = read_manifest(bundle).measured  # 4 ms on the host "host"
    measured = make_baseline().measurement
    assert measured

    def holds(ms: float, **changes: Any) -> bool | None:
        return compare_latency(card, replace(measured.latency, p50_ms=ms, host="host", **changes)).holds

    assert holds(4.7) is True
    assert holds(4.9) is False
    assert holds(9.0, waiting=0.5) is True
    assert holds(2.0) is True
    assert compare_latency(card, replace(measured.latency, p50_ms=40, host="other")).holds is None


def test_latency_of_several_pictures_is_compared_with_as_many(model: Path, bundle: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", model, size=SIZE)
    records = study / "records.jsonl"
    content = [json.loads(line) for line in records.read_text().splitlines()]
    for record in content:
        record["measurement"]["latency"]["batch"] = 4
    records.write_text("".join(json.dumps(record) + "\n" for record in content))
    four = make_bundle(study, pick="recommended")
    assert read_manifest(four).measured.latency_batch == 4
    card = (four / "README.md").read_text()
    assert "| latency of 4 pictures at once | 4.00 ms" in card
    assert "one picture at a time" not in card
    once, together = (verify_bundle(own, seconds=1.0).measured for own in (bundle, four))
    assert [found["latency_batch"] for found in (once, together)] == [1, 4]
    done = subprocess.run(
        [sys.executable, "benchmark.py", "--runs", "2", "--json"], cwd=four, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["card_ms_p50"] is None  # it runs one picture at a time


def test_a_bundle_of_old_is_of_one_picture(copy: Path) -> None:
    content = json.loads((copy / "bundle.json").read_text())
    del content["measured"]["latency_batch"]
    (copy / "bundle.json").write_text(json.dumps(content))
    assert read_manifest(copy).measured.latency_batch == 1


def test_accuracy_may_not_fall_below_the_cards_interval_or_a_point_without_one(bundle: Path) -> None:
    card = read_manifest(bundle).measured
    assert card.accuracy_ci is None
    assert [compare_accuracy(card, value, "val").holds for value in (0.58, 0.591, 0.7)] == [False, True, True]
    wide = card.model_copy(update={"accuracy_ci": (0.5, 0.7)})
    assert [compare_accuracy(wide, value, "val").holds for value in (0.49, 0.51)] == [False, True]


def test_answers_are_matched_by_class_and_place_whatever_their_order() -> None:
    boxes = np.array([[0, 0, 10, 10, 0.9, 1], [50, 50, 60, 60, 0.9, 1], [5, 5, 9, 9, 0.5, 2]], dtype=np.float32)
    moved = boxes[[1, 0, 2]] + np.array([0.25, 0, 0, 0, 0.125, 0], dtype=np.float32)
    assert differences(moved, boxes) == pytest.approx((0.25, 0.125))
    assert differences(boxes[:2], boxes) is None
    other = boxes.copy()
    other[2, 5] = 1
    assert differences(other, boxes) is None
    classes = np.array([[3, 0.7], [1, 0.3]], dtype=np.float32)
    assert differences(classes[::-1] + np.array([0, 0.1], dtype=np.float32), classes) == pytest.approx((0, 0.1))


def test_what_cannot_be_bundled_is_said(study: Path, bundle: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recommended-edge is there already; remove it, or give another folder"):
        make_bundle(study, pick="recommended")
    other = make_study(tmp_path / "other", model, size=SIZE, target="openvino-cpu")
    with pytest.raises(UserError, match=r"was searched for openvino-cpu \(openvino cpu\), and a bundle runs"):
        make_bundle(other, pick="recommended")
    changed = make_study(tmp_path / "changed", model, size=SIZE)
    [file] = changed.glob("artifacts/*/model.onnx")
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(UserError, match="is not the file that was measured"):
        make_bundle(changed, pick="recommended")
    assert not (changed / "bundles").exists()
    file.unlink()
    with pytest.raises(UserError, match="is missing: the study folder is not complete"):
        make_bundle(changed, pick="recommended")


def test_the_sample_may_be_ones_own_and_says_nothing_but_its_pixels(study: Path, tmp_path: Path) -> None:
    from PIL import Image

    own = picture(3, 1000, 2000)
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    own.save(tmp_path / "own.jpg", exif=exif)
    made = make_bundle(study, pick="fastest", out=tmp_path / "b", sample=tmp_path / "own.jpg")
    with Image.open(made / "sample.png") as sample:
        assert (sample.size, dict(sample.getexif())) == ((1280, 640), {})
    (tmp_path / "own.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"own\.jpg cannot be read"):
        make_bundle(study, pick="fastest", out=tmp_path / "c", sample=tmp_path / "own.jpg")


def test_what_is_no_bundle_is_said(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no bundle: it has no bundle\.json"):
        verify_bundle(tmp_path)
    with pytest.raises(UserError, match=r"is no bundle: unpack it first"):
        verify_bundle(tmp_path / "b.zip")
    content = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(content | {"model": "../../etc/passwd"}))
    with pytest.raises(UserError, match=r"bundle\.json: model: Input should be 'model\.onnx'"):
        read_manifest(copy)
