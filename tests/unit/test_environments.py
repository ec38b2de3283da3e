"""Environments are made of small wheels that lie on the disk: no network."""

from __future__ import annotations

import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search import environments
from search.environments import MARKER, ROOT_VARIABLE, Environment, find_python, installed_in, python_of
from search.errors import UserError

SHADOWED = "iniconfig"  # a small package that the project's environment has, in another version


def wheel(folder: Path, name: str, version: str, requires: str = "") -> str:
    """A wheel of one module that knows its version; returns pip's requirement for it."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return f"{name} @ {path.as_uri()}"


def says(python: Path, code: str) -> str:
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "environments"))
    return tmp_path / "environments"


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run; they are run."""
    commands: list[list[str]] = []
    real = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return real(command, **options)

    monkeypatch.setattr(environments.subprocess, "run", run)
    return commands


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    other = wheel(tmp_path, SHADOWED, "999.0")
    return Environment("small", (wheel(tmp_path, "tinything", "1.2", "numpy>=2"), other))


def test_it_has_its_packages_over_those_of_the_project(environment: Environment, root: Path) -> None:
    assert find_python(environment) is None
    assert not root.exists()  # looking makes nothing
    python = python_of(environment)
    assert find_python(environment) == python
    assert root in python.parents
    assert says(python, "import tinything; print(tinything.version)") == "1.2"
    assert says(python, f"import {SHADOWED}; print({SHADOWED}.version)") == "999.0"
    assert metadata.version(SHADOWED) != "999.0"
    assert (installed_in(environment, SHADOWED), installed_in(environment, "numpy")) == ("999.0", None)
    assert Path(says(python, "import numpy; print(numpy.__file__)")).samefile(np.__file__)
    assert np.__version__ == says(python, "import numpy; print(numpy.__version__)")
    with pytest.raises(subprocess.CalledProcessError):
        says(python, "import search")


def test_two_that_ask_at_once_make_it_once(environment: Environment, installs: list[list[str]]) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(python_of, [environment] * 2)
    assert first == second == python_of(environment)
    assert len(installs) == 1


def test_other_requirements_are_another_environment(environment: Environment, tmp_path: Path) -> None:
    newer = Environment(environment.name, (wheel(tmp_path, "tinything", "1.3"),))
    assert python_of(environment) != python_of(newer)
    assert says(python_of(environment), "import tinything; print(tinything.version)") == "1.2"


def test_a_failure_says_what_pip_said_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    missing = Environment("missing", (f"nothing @ {(tmp_path / 'nothing-1.0-py3-none-any.whl').as_uri()}",))
    with pytest.raises(UserError, match=r"(?s)could not install nothing.*environment missing.*No such file"):
        python_of(missing)
    assert find_python(missing) is None
    assert [path.suffix for path in root.iterdir()] == [".lock"]


def test_half_an_environment_is_none(environment: Environment) -> None:
    """As a kill leaves it: the marker is written last."""
    folder = python_of(environment).parents[1]
    (folder / MARKER).unlink()
    (folder / "left over").touch()
    assert find_python(environment) is None
    python_of(environment)
    assert not (folder / "left over").exists()


def test_one_that_lost_its_interpreter_is_made_again(environment: Environment) -> None:
    """A virtual environment points to a Python that may be uninstalled."""
    python = python_of(environment)
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert find_python(environment) is None
    assert says(python_of(environment), "print('well')") == "well"


def test_a_place_that_cannot_be_written_is_the_user_s_to_mend(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match=f"cannot make the environment small: .*set {ROOT_VARIABLE} to"):
        python_of(environment)
