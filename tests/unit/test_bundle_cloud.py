"""Bundles for the cloud: what is in them, and that Triton's configuration says what the file says."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from search.bundle.make import make_bundle
from search.bundle.manifest import read_manifest
from search.bundle.triton import configuration, write_repository
from search.bundle.verify import verify_bundle
from search.errors import UserError
from search.serving import stage
from search.stages.export import export_onnx
from spaces.recipe import Export
from tests.bundles import make_study
from tests.lively import lively_model
from tests.tiny import SIZE, files_below, noise, onnx_answers, sha256

OWN = {
    *("server.py", "app.py", "guard.py", "pictures.py", "settings.py", "page.html", "load.py", "triton_client.py"),
    *("Dockerfile", "Dockerfile.dockerignore", "triton/yolo/config.pbtxt", "triton/yolo/1/model.onnx"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return export_onnx(lively_model(), Export(), image_size=SIZE, path=path)


@pytest.fixture(scope="module")
def study(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"), model, size=SIZE)


@pytest.fixture(scope="module")
def bundle(study: Path) -> Path:
    return make_bundle(study, pick="recommended", place="cloud")


def test_it_has_all_of_the_edges_and_its_own_and_the_same_archive_each_time(
    bundle: Path, study: Path, tmp_path: Path
) -> None:
    edge = make_bundle(study, pick="recommended", out=tmp_path / "edge")
    assert bundle == study / "bundles" / "recommended-cloud"
    assert set(files_below(bundle)) == set(files_below(edge)) | OWN
    assert sha256(bundle / "model.onnx") == sha256(edge / "model.onnx")
    again = make_bundle(study, pick="recommended", place="cloud", out=tmp_path / "recommended-cloud")
    assert sha256(Path(f"{bundle}.zip")) == sha256(Path(f"{again}.zip"))


def test_a_bundle_as_it_was_made_holds(bundle: Path) -> None:
    verdict = verify_bundle(bundle, seconds=0.5)
    assert {check.name: check.holds for check in verdict.checks} == {
        "checksums": True, "runner": True, "answers": True, "latency": None
    }  # fmt: skip


def test_packages_are_pinned_and_in_the_bill_of_materials(bundle: Path) -> None:
    pinned = dict(line.split("==") for line in (bundle / "requirements.txt").read_text().split())
    bill = json.loads((bundle / "sbom.cdx.json").read_text())
    parts = {part["name"]: part["version"] for part in bill["components"] if part["type"] == "library"}
    assert {name.split("[")[0]: version for name, version in pinned.items()} == parts
    assert "ray[serve]" in pinned and "onnxruntime" in pinned and not {"torch", "ultralytics"} & set(pinned)
    code = "\n".join(path.read_text() for path in bundle.glob("*.py"))
    for name in re.findall(r"^(?:from|import) (\w+)", code, re.M):
        known = {"PIL": "pillow", "prometheus_client": "prometheus-client"}.get(name, name)
        assert known in parts or (bundle / f"{name}.py").exists() or name in sys.stdlib_module_names, name
    assert "POST /predict" in (bundle / "README.md").read_text()


def test_a_container_gets_what_is_in_the_bundle_and_runs_it_as_somebody_without_rights(bundle: Path) -> None:
    lines = (bundle / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert [name for name, _ in steps] == [
        "FROM", "RUN", "WORKDIR", "COPY", "RUN", "COPY", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"
    ]  # fmt: skip
    told = dict(steps)
    user = re.search(r"useradd .* (\w+)$", steps[1][1])
    assert user and told["USER"] == user[1] != "root"
    assert json.loads(told["CMD"]) == ["python", "server.py"]
    command = json.loads(told["HEALTHCHECK"].split("CMD", 1)[1])
    compile(command[2], "HEALTHCHECK", "exec")
    assert steps[3][1] == "requirements.txt ." and (bundle / "requirements.txt").is_file()
    names = {name.lower() for name in re.findall(r"BUNDLE_(\w+)=", told["ENV"])}
    assert names <= set(read_settings())


def read_settings() -> list[str]:
    from dataclasses import fields

    from tests.served import of_bundle

    return [item.name for item in fields(of_bundle("settings").Settings)]


def parsed(text: str) -> dict[str, Any]:
    """Protobuf's text form, as far as it is used here: names with values, lists and messages; what else is in it fails.

    The same text was read with Triton's own model_config.proto (tritonclient 2.73) when this was written.
    """
    tokens = re.findall(r'"[^"]*"|[\[\]{}:,]|[\w.-]+', text)
    assert "".join(tokens) == re.sub(r"\s", "", text)
    place = 0

    def value() -> Any:
        nonlocal place
        token = tokens[place]
        place += 1
        if token == "{":
            return message("}")
        if token == "[":
            found = []
            while tokens[place] != "]":
                found.append(value())
                if tokens[place] == ",":
                    place += 1
            place += 1
            return found
        return token.strip('"') if token.startswith('"') else int(token) if token.lstrip("-").isdigit() else token

    def message(end: str | None) -> dict[str, Any]:
        nonlocal place
        found: dict[str, Any] = {}
        while place < len(tokens) and tokens[place] != end:
            name = tokens[place]
            place += 1
            if tokens[place] == ":":
                place += 1
            assert name not in found, name
            found[name] = value()
        place += 1
        return found

    return message(None)


@pytest.mark.parametrize("fast_dfl", [False, True])
def test_triton_is_told_what_the_file_says_and_the_file_takes_any_number(fast_dfl: bool, tmp_path: Path) -> None:
    source = export_onnx(lively_model(), Export(fast_dfl=fast_dfl), image_size=SIZE, path=tmp_path / "one.onnx")
    write_repository(source, tmp_path / "triton", threads=3)
    told = parsed((tmp_path / "triton" / "yolo" / "config.pbtxt").read_text())
    file = tmp_path / "triton" / "yolo" / "1" / "model.onnx"
    session: Any = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16"}
    for name, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        assert [one.shape[0] for one in tensors] == ["batch"] * len(tensors)
        expected = [{"name": one.name, "data_type": kinds[one.type], "dims": one.shape[1:]} for one in tensors]
        assert told[name] == expected
    assert (told["name"], told["backend"], told["max_batch_size"]) == ("yolo", "onnxruntime", 8)
    assert told["dynamic_batching"] == {"max_queue_delay_microseconds": 2000}
    assert told["instance_group"] == [{"kind": "KIND_CPU", "count": 1}]
    assert told["parameters"] == {"key": "intra_op_thread_count", "value": {"string_value": "3"}}
    pictures = noise(5)
    alone = onnx_answers(source, pictures)
    assert np.abs(alone[1:] - alone[:-1]).mean(axis=2).min() > 0.02  # each row tells pictures apart
    for count in (1, 2, 5):
        [together] = session.run(None, {session.get_inputs()[0].name: np.concatenate(pictures[:count])})
        np.testing.assert_allclose(together, alone[:count], rtol=1e-3, atol=1e-3)


def test_a_file_that_takes_one_picture_only_is_left_as_it_is(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.zeros((1, 3, 4, 4), dtype=np.float32), "c")
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x", "c"], ["y"], axis=1)],  # which a batch of two would not fit
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 4, 4])],
        [constant],
    )
    source = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), source)
    write_repository(source, tmp_path / "triton", threads=1)
    assert sha256(tmp_path / "triton" / "yolo" / "1" / "model.onnx") == sha256(source)
    told = parsed((tmp_path / "triton" / "yolo" / "config.pbtxt").read_text())
    assert told["max_batch_size"] == 0 and "dynamic_batching" not in told
    assert told["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [1, 3, 4, 4]}]
    assert parsed(configuration(source, several=False, threads=1)) == told


def test_what_is_served_is_this_versions_code_around_the_bundles_model(
    bundle: Path, study: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "app.py").write_text("another version")
    sums = (copy / "SHA256SUMS").read_text()
    (copy / "SHA256SUMS").write_text(re.sub(r"\w{64}(?=  app.py)", sha256(copy / "app.py"), sums))
    place = tmp_path / "place"
    place.mkdir()
    stage(copy, place)
    assert (place / "app.py").read_bytes() == (bundle / "app.py").read_bytes()
    assert sha256(place / "model.onnx") == sha256(bundle / "model.onnx")
    edge = make_bundle(study, pick="recommended", out=tmp_path / "edge")
    (tmp_path / "other").mkdir()
    stage(edge, tmp_path / "other")
    assert read_manifest(tmp_path / "other").place == "edge"
    assert sha256(tmp_path / "other" / "triton/yolo/1/model.onnx") == sha256(bundle / "triton/yolo/1/model.onnx")
    (copy / "model.onnx").write_bytes(b"another")
    with pytest.raises(UserError, match=r"model\.onnx was changed; unpack it again"):
        stage(copy, tmp_path / "third")
