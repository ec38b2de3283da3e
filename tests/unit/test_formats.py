"""What the table of formats promises: why one cannot be written here, and what to do about it."""

from __future__ import annotations

import platform
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from search.doctor import Check, doctor
from search.errors import UserError
from search.formats import FORMATS, check_format, versions, why_not_carried, why_not_here
from spaces.recipe import Fp16, Fp32, Int8Dynamic, Int8Static, Int16, LowBit, Mixed, WeightOnly

ROOT = Path(__file__).resolve().parents[2]
INTEGERS = [part.model_fields["kind"].default for part in (Int8Static, Int8Dynamic, Int16, WeightOnly, LowBit, Mixed)]
FP32, FP16 = (part.model_fields["kind"].default for part in (Fp32, Fp16))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Distributions and their versions, in place of those that are installed."""
    known: dict[str, str] = {}

    def version(package: str) -> str:
        if package not in known:
            raise metadata.PackageNotFoundError(package)
        return known[package]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return known


def format_lines() -> dict[str, Check]:
    return {check.name: check for check in doctor() if check.name.startswith("format ")}


def test_a_missing_package_is_named_with_what_installs_it(installed: dict[str, str]) -> None:
    for name, packages, install in (
        ("openvino", "openvino>=2024.0.0", "'.[openvino]'"),
        ("ncnn", "ncnn and pnnx==20260526", "'.[ncnn]'"),
        ("tensorrt", "tensorrt | tensorrt-cu13 | tensorrt-cu12", "tensorrt-cu12"),
    ):
        obstacle = why_not_here(name, gpu=True)
        assert obstacle is not None
        assert obstacle.reason == f"{name} needs {packages}"
        assert install in obstacle.advice
        with pytest.raises(UserError) as refused:
            check_format(name, "fp32", gpu=True)
        assert str(refused.value) == f"{obstacle.reason}: {obstacle.advice}"
    installed["ncnn"], installed["pnnx"] = "1.0.20260526", "20260704"  # one that makes files that crash ncnn
    assert "needs pnnx==20260526" in str(why_not_here("ncnn", gpu=False))


def test_what_is_installed_is_enough_and_is_named(installed: dict[str, str]) -> None:
    installed |= {"ncnn": "1.0.20260526", "pnnx": "20260526", "tensorrt-cu12": "10.16"}
    for name in ("ncnn", "tensorrt", "litert"):
        assert why_not_here(name, gpu=True) is None
        check_format(name, "fp32", gpu=True)
    assert versions("ncnn") == "ncnn 1.0.20260526, pnnx 20260526"
    assert versions("tensorrt") == "tensorrt-cu12 10.16"
    assert "format ncnn: can be written with ncnn 1.0.20260526, pnnx 20260526".endswith(
        format_lines()["format ncnn"].detail
    )


def test_tensorrt_needs_the_gpu_that_runs_it(installed: dict[str, str]) -> None:
    installed["tensorrt"] = "10.16"
    obstacle = why_not_here("tensorrt", gpu=False)
    assert obstacle is not None
    assert "made on the NVIDIA GPU that runs them" in obstacle.reason
    assert obstacle.advice == "run the apply command there"


def test_litert_s_converter_runs_on_few_systems(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_here("litert", gpu=False) is None  # its converter gets an environment of its own
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "Linux x86_64, Darwin x86_64, Darwin arm64 only, and this is Linux aarch64" in str(
        why_not_here("litert", gpu=False)
    )


def test_every_format_carries_fp32_and_says_why_it_carries_nothing_else() -> None:
    assert [name for name in FORMATS if why_not_carried(name, FP32)] == []
    assert [name for name in FORMATS if why_not_carried(name, FP16)] == ["torchscript", "litert"]
    for kind in INTEGERS:
        carried = ["onnx", "litert"] if kind in {"int8", "int8_dynamic", "weight_only"} else ["onnx"]
        assert [name for name in FORMATS if not why_not_carried(name, kind)] == carried
    assert "OpenVINO reads the int8 model.onnx as it is" in why_not_carried("openvino", "int8")
    with pytest.raises(UserError, match="litert cannot carry quantize: fp16: LiteRT itself computes"):
        check_format("litert", "fp16", gpu=False)


def test_doctor_has_a_line_for_each_format(installed: dict[str, str]) -> None:
    installed |= {"torch": "2.14.1"}
    lines = format_lines()
    assert list(lines) == [f"format {name}" for name in FORMATS]
    assert not any(check.required for check in lines.values())
    assert [name for name, check in lines.items() if check.ok] == ["format torchscript", "format litert"]
    assert all(check.advice for check in lines.values() if not check.ok)
    assert lines["format openvino"].detail == "openvino needs openvino>=2024.0.0"
    assert "pip install" in lines["format openvino"].advice


def test_the_extras_install_what_the_formats_need() -> None:
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    for name in ("openvino", "ncnn"):
        offered = {item.name: item for item in map(Requirement, extras[name])}
        for wanted in map(Requirement, FORMATS[name].packages):
            lowest = next(iter(offered[wanted.name].specifier)).version
            assert wanted.specifier.contains(pinned.get(wanted.name, lowest))
            assert offered[wanted.name].specifier.contains(pinned[wanted.name])
    [everything] = [item for item in map(Requirement, extras["dev"]) if item.name == "yolo-front"]
    assert {"openvino", "ncnn"} <= everything.extras
