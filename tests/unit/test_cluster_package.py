"""What a job brings along: the code and nothing beside it, the same bytes each time, within the cluster's limit."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cluster.dependencies import missing, pinned, required
from cluster.errors import UserError
from cluster.package import ROOT, code_files, write_package

SHIPPED = {
    "pyproject.toml",
    "constraints.txt",
    "search/__init__.py",
    "search/deep/er/file.py",
    "search/presets/one.yaml",
    "mine/__init__.py",
}
LEFT = {
    ".git/config",
    ".env",
    ".venv/lib/x.py",
    "secret.txt",
    "notebook.ipynb",
    "data/images/0.jpg",
    "results/mine/records.jsonl",
    "results/__init__.py",
    "tests/__init__.py",
    "tests/test_x.py",
    "runs/detect/train/weights/best.pt",
    "search/__pycache__/file.pyc",
    "search/deep/.cache/x",
    "search/labels.cache",
    "search/weights.pt",
    "yolov8n.pt",
}


def test_only_the_code_is_shipped(tmp_path: Path) -> None:
    for name in SHIPPED | LEFT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert set(code_files(tmp_path)) == SHIPPED
    assert all(source == tmp_path / name for name, source in code_files(tmp_path).items())


def test_all_of_this_repositorys_code_is_shipped() -> None:
    command = ["git", "ls-files", "cluster", "search", "spaces", "pyproject.toml", "constraints.txt"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    shipped = code_files()
    assert set(listed.stdout.split()) <= set(shipped)
    assert {name.split("/")[0] for name in shipped if "/" in name} == {"cluster", "search", "spaces"}


def test_the_shipped_code_runs_by_itself(tmp_path: Path) -> None:
    write_package(code_files(), tmp_path / "package.zip")
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        package.extractall(tmp_path / "there")
    code = (
        "import cluster.on_head, search.study, spaces.parse; print(search.__file__); spaces.parse.load_space('demo', "
    )
    code += "image_size=64)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "there", env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "there" / "search" / "__init__.py")


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    files = {"y": tmp_path / "a", "x": b"x"}
    write_package(files, tmp_path / "1.zip")
    os.utime(tmp_path / "a", (0, 0))
    write_package(dict(reversed(files.items())), tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as package:
        assert {name: package.read(name) for name in package.namelist()} == {"x": b"x", "y": b"a"}
    write_package({**files, "x": b"z"}, tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() != (tmp_path / "2.zip").read_bytes()


def test_what_is_too_large_is_refused_with_its_sizes(tmp_path: Path) -> None:
    files = {"inputs/data/0.jpg": os.urandom(300_000), "inputs/model/m.pt": os.urandom(150_000), "search/x.py": b"x"}
    write_package(files, tmp_path / "package.zip", limit=500_000)
    with pytest.raises(UserError) as caught:
        write_package(files, tmp_path / "package.zip", limit=400_000)
    text = (
        "the upload has 0.5 MB (data 0.3 MB, model 0.1 MB, code 0.0 kB) and a cluster takes 0.4 MB; put what is large"
    )
    assert str(caught.value).startswith(text)


def test_dependencies_are_pinned_at_the_tested_versions() -> None:
    names = {requirement.name for requirement in required(ROOT)}
    pins = dict(line.split("==") for line in pinned(ROOT))
    assert set(pins) == names - {"ray"}  # that must be the cluster's own
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(f"{name}=={pin}".lower() in {line.lower() for line in constraints} for name, pin in pins.items())


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    assert missing(ROOT) == []
    wanted = '["numpy>=1", "numpy<1", "no-such-package>=1", "ray[tune]>=2"]'
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {wanted}\n")
    assert missing(tmp_path) == ["numpy<1", "no-such-package>=1"]
