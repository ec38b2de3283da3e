"""What the doctor finds on this machine, with and without a card, a package or a project file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import pytest

from search.doctor import Check, doctor
from search.formats import FORMATS
from search.measure import host
from search.measure.host import host_info


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def fake_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_graphics_cards_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(
        tmp_path, monkeypatch, "echo 'NVIDIA A10, 23028 MiB, 550.54.14'; echo 'NVIDIA T4, 15360 MiB, 550.54.14'"
    )
    without = by_name(doctor())
    assert host_info().gpus == ("NVIDIA A10, 23028 MiB, 550.54.14", "NVIDIA T4, 15360 MiB, 550.54.14")
    assert without["gpu"].ok
    assert "NVIDIA T4" in without["gpu"].detail


def test_a_broken_driver_is_told_and_is_not_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, "echo 'Driver/library version mismatch'; exit 18")
    assert host_info().gpus == ()
    check = by_name(doctor())["gpu"]
    assert (check.ok, check.required) == (False, False)
    assert "version mismatch" in check.detail


def test_doctor_finds_this_environment_complete() -> None:
    checks = by_name(doctor())
    assert [check.name for check in checks.values() if check.required and not check.ok] == []
    assert {*host.PACKAGES, "python", "cores", "memory", "disk", "gpu", "int8"} <= set(checks)
    assert {f"format {name}" for name in FORMATS} <= set(checks)
    assert "CPUExecutionProvider" in checks["onnxruntime providers"].detail
    assert all(bool(check.advice) is not check.ok for check in checks.values())
    assert json.loads(json.dumps([asdict(check) for check in checks.values()]))


def test_doctor_names_a_missing_package_and_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(package: str) -> str:
        if package == "torch-pruning":
            raise metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(metadata, "version", version)
    check = by_name(doctor())["torch-pruning"]
    assert (check.ok, check.required) == (False, True)
    assert check.detail.startswith("not installed")
    assert check.advice.startswith('pip install "torch-pruning')
    assert "torch-pruning" not in host_info().packages


def test_doctor_holds_packages_to_the_declared_ranges(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        """
[project]
dependencies = ["Ray[tune]>=99", "optuna>=1", "absent-package>=2; python_version < '3'", "made_up.package"]
""",
        encoding="utf-8",
    )
    checks = by_name(doctor(project))
    assert not checks["ray"].ok
    assert checks["ray"].detail == f"{metadata.version('ray')} (needs >=99)"
    assert checks["ray"].advice == 'pip install "ray>=99"'
    assert checks["optuna"].ok
    assert not checks["made-up-package"].ok
    assert "absent-package" not in checks
    assert checks["torch"].ok  # not declared there: any version will do


def test_doctor_without_a_project_file_accepts_any_version(tmp_path: Path) -> None:
    assert by_name(doctor(tmp_path / "pyproject.toml"))["ray"].ok


def test_doctor_survives_an_onnxruntime_that_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    check = by_name(doctor())["onnxruntime providers"]
    assert (check.ok, check.required) == (False, True)
    assert "reinstall" in check.advice
