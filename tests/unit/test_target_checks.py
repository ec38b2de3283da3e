"""Targets that cannot run here are refused with what they lack, before any work."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import onnxruntime
import pytest
import yaml
from typer.testing import CliRunner

from search.__main__ import app
from search.errors import UserError
from search.measure import target_checks
from search.measure.target_checks import check_runs, check_targets, list_targets, why_not_here
from search.runtimes.table import RUNTIMES
from search.study import StudyConfig
from search.target import Target, load_target, target_names
from spaces.parse import parse_space
from spaces.space import Space

EIGHT = {
    "onnxruntime-cpu",
    "openvino-cpu",
    "onnxruntime-openvino",
    "litert-cpu",
    "ncnn-cpu",
    "torchscript-cpu",
    "onnxruntime-cuda",
    "tensorrt",
}


def space_of(*kinds: object) -> Space:
    return (
        StudyConfig.model_validate(
            {"name": "s", "model": "a.pt", "data": "d.yaml", "image_size": 64, "space": "detect-cpu"}
        ).load_space()
        if not kinds
        else parse_space({"quantize": list(kinds)}, name="own", image_size=64)
    )


def a_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A10, 23028 MiB, 550.54.14'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    real = metadata.version

    def version(package: str) -> str:
        if package in packages:
            raise metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(metadata, "version", version)


def test_there_is_a_file_for_every_target() -> None:
    assert set(target_names()) >= EIGHT


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "tensorrt"])
def test_without_a_card_a_gpu_target_is_refused_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    obstacle = why_not_here(load_target(name))
    assert obstacle is not None
    assert obstacle.reason == f"{name} needs an NVIDIA GPU: no NVIDIA driver (nvidia-smi not found)"
    assert f'"bench:{name}"' in obstacle.advice


def test_with_a_card_what_is_missing_is_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_card(tmp_path, monkeypatch)
    without(monkeypatch, "onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13")
    reasons = {name: why_not_here(load_target(name)) for name in ("onnxruntime-cuda", "tensorrt")}
    assert "onnxruntime-cuda needs onnxruntime-gpu: give the target env" in ": ".join(reasons["onnxruntime-cuda"] or ())
    assert "tensorrt needs tensorrt or tensorrt-cu13 or" in ": ".join(reasons["tensorrt"] or ())


def test_a_build_without_the_provider_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package says that it has CUDA; the module that is imported says what it really has."""
    a_card(tmp_path, monkeypatch)
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.32.0" if name == "onnxruntime-gpu" else real(name))
    obstacle = why_not_here(load_target("onnxruntime-cuda"))
    assert obstacle is not None
    assert obstacle.reason.startswith("onnxruntime-cuda needs CUDAExecutionProvider, and onnxruntime has ")


def test_a_provider_that_is_compiled_in_and_does_not_work_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process believes that it has CUDA; the child that would measure finds that it has not."""
    a_card(tmp_path, monkeypatch)
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.32.0" if name == "onnxruntime-gpu" else real(name))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    obstacle = why_not_here(load_target("onnxruntime-cuda"))
    assert obstacle is not None
    assert obstacle.reason.startswith("onnxruntime-cuda does not run: ONNX Runtime 1.")
    assert "has no working CUDAExecutionProvider here, " in obstacle.reason
    assert "onnxruntime-gpu" in obstacle.advice


def test_a_gpu_target_on_which_the_smallest_of_models_runs_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_card(tmp_path, monkeypatch)
    providers = RUNTIMES["onnxruntime"].providers
    monkeypatch.setitem(providers, "cpu", replace(providers["cpu"], device="gpu"))
    assert why_not_here(Target(device="gpu")) is None


def test_an_environment_that_is_not_made_yet_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_card(tmp_path, monkeypatch)
    monkeypatch.setenv("YOLO_FRONT_ENVIRONMENTS", str(tmp_path))
    assert why_not_here(load_target("onnxruntime-cuda", environment=["onnxruntime-gpu"])) is None


def test_a_runtime_that_is_not_installed_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_here(load_target("onnxruntime-cpu")) is None
    without(monkeypatch, "openvino", "ncnn")
    for name in ("openvino", "ncnn"):
        obstacle = why_not_here(load_target(f"{name}-cpu"))
        assert obstacle == (f"{name}-cpu needs {name}", f"pip install -c constraints.txt -e '.[{name}]'")


def test_an_environment_of_its_own_is_no_obstacle() -> None:
    target = load_target("onnxruntime-openvino")
    assert target.environment
    assert why_not_here(target) is None
    bare = target.model_copy(update={"environment": ()})
    obstacle = why_not_here(bare)
    assert obstacle is not None and "needs onnxruntime-openvino" in obstacle.reason


def test_doctor_and_the_list_say_the_same() -> None:
    checks = {check.name: check for check in check_targets()}
    for target in list_targets():
        check = checks[f"target {target['name']}"]
        assert (check.ok, check.required) == (target["here"], False)
        assert bool(check.advice) is not check.ok
        assert target["here"] or check.detail == target["why_not"]
    assert metadata.version("onnxruntime") in checks["target onnxruntime-cpu"].detail


def test_the_command_prints_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = CliRunner().invoke(app, ["targets", "--json"])
    assert done.exit_code == 0, done.output
    found = {target["name"]: target for target in json.loads(done.stdout)}
    assert set(found) == set(target_names())
    assert found["onnxruntime-cpu"] | {"here": True, "why_not": "", "format": "onnx"} == found["onnxruntime-cpu"]
    assert not found["tensorrt"]["here"]
    plain = CliRunner().invoke(app, ["targets"]).stdout
    assert all(name in plain for name in found)
    assert "tensorrt needs an NVIDIA GPU" in plain


def test_a_study_for_what_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    targets = (Target(), load_target("tensorrt"))
    with pytest.raises(UserError, match=r"target tensorrt: tensorrt needs an NVIDIA GPU.*: choose another target"):
        check_runs(targets, space_of())
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    check_runs(targets, space_of())  # another machine of the cluster measures


def test_a_study_whose_files_cannot_be_written_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ncnn")
    without(monkeypatch, "pnnx")
    assert why_not_here(load_target("ncnn-cpu")) is None
    with pytest.raises(UserError, match=r"target ncnn-cpu: ncnn needs pnnx"):
        check_runs((load_target("ncnn-cpu"),), space_of({"kind": "fp32"}))


def test_a_space_without_a_kind_that_the_target_runs_is_refused() -> None:
    """Whether by the target's list, by the number of bits, or because its files cannot carry it."""
    fp32, int8, four = {"kind": "fp32"}, {"kind": "int8"}, {"kind": "weight_only", "bits": [4, 2]}
    torchscript, openvino = load_target("torchscript-cpu"), load_target("openvino-cpu")
    with pytest.raises(UserError, match=r"no kind of quantize that it has \(int8\) runs on torchscript-cpu.*fp32"):
        check_runs((torchscript,), space_of(int8))
    check_runs((torchscript,), space_of(int8, fp32))
    check_runs((Target(), torchscript), space_of(int8))  # a second target may lack what others have
    check_runs((openvino,), space_of(four))
    with pytest.raises(UserError, match="weight_only"):
        check_runs((openvino,), space_of({"kind": "weight_only", "bits": [3, 2]}))
    claims_all = Target(name="own", runtime="ncnn")
    with pytest.raises(UserError, match="ncnn files"):
        check_runs((claims_all,), space_of(int8))


def test_a_target_of_ones_own_may_change_bits(tmp_path: Path) -> None:
    file = tmp_path / "board.yaml"
    file.write_text(yaml.safe_dump({"runtime": "onnxruntime", "precisions": ["low_bit-4", "fp32"]}), encoding="utf-8")
    target = load_target(str(file))
    assert target.runs_kind("low_bit", 4) and target.runs_kind("fp32")
    assert not target.runs_kind("low_bit", 2) and not target.runs_kind("low_bit")
    assert target_checks.why_not_here(target) is None
