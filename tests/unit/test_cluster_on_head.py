"""What a job does before the study runs: the right paths, run or resume, and no other study in its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import UserError
from cluster.inputs import read_inputs
from cluster.places import folder_of
from tests.unit.test_cluster_inputs import unpack, write

ROOT = Path(__file__).resolve().parents[2]
# In the place of the search, which would take minutes: what it is asked for, and the study folder that it would make.
SEARCH = """
import json, shutil, sys
from pathlib import Path
working = Path.home() / "working"
if sys.argv[1] == "sync":
    if "gone" in sys.argv[2]:
        sys.exit("error: there is no such bucket")
    working.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"folder": str(working), "study": (working / "study.yaml").is_file()}))
    sys.exit()
print("search", *sys.argv[1:])
if sys.argv[1] == "run":
    folder = working if "://" in sys.argv[4] else Path(sys.argv[4])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(sys.argv[2], folder / "study.yaml")
"""


def job(
    tmp_path: Path, dependencies: str = "[]", root: str = "~/root", **changes: Any
) -> subprocess.CompletedProcess[str]:
    """A job of a study with a model of its own, on a head whose home folder is ``tmp_path/home``."""
    (tmp_path / "model.pt").write_text(changes.pop("weights", "weights"))
    package = tmp_path / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "cluster", package / "cluster")
    (package / "search").mkdir()
    (package / "search" / "__main__.py").write_text(SEARCH)
    (package / "pyproject.toml").write_text(f"[project]\ndependencies = {dependencies}\n")
    unpack(read_inputs(write(tmp_path / "study.yaml", model=str(tmp_path / "model.pt"), **changes)).packed(), package)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "cluster.on_head", "study", root]
    home = {"HOME": str(tmp_path / "home")}
    return subprocess.run(
        command, cwd=package, env={**environment, **home}, capture_output=True, text=True, check=False, timeout=60
    )


def yaml_of(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def test_a_study_starts_and_then_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "home" / "root"
    folder, inputs = root / "studies" / "cats", root / "inputs" / "cats"
    started = job(tmp_path, data="~/cats/data.yaml", budget={"trials": 8})
    assert started.stdout == f"starting cats in {folder}\nsearch run {inputs}/study.yaml --out {folder}\n", started
    study = yaml_of(folder / "study.yaml")
    assert study["model"] == f"{inputs}/model/model.pt" and Path(study["model"]).read_text() == "weights"
    assert study["data"] == f"{tmp_path}/home/cats/data.yaml"
    more = {"trials": 20}
    resumed = job(tmp_path, data="~/cats/data.yaml", budget=more, resources={"concurrent": 2})
    assert resumed.stdout == f"going on with cats in {folder}\nsearch resume {folder}\n", resumed
    assert yaml_of(folder / "study.yaml") == {**study, "budget": more, "resources": {"concurrent": 2}}
    assert Path(study["model"]).read_text() == "weights"


def test_a_study_behind_a_url_starts_and_then_goes_on_from_what_is_there(tmp_path: Path) -> None:
    """What was shipped is noted beside the study, so that another head, without this home folder, knows it too."""
    root, place = "s3://lab/a?region=x", "s3://lab/a/studies/cats?region=x"
    working, inputs = tmp_path / "home" / "working", tmp_path / "home" / "yolo-front" / "inputs" / "cats"
    started = job(tmp_path, root=root, budget={"trials": 8})
    assert started.stdout == f"starting cats in {place}\nsearch run {inputs}/study.yaml --out {place}\n", started
    shutil.rmtree(inputs.parent)
    resumed = job(tmp_path, root=root, budget={"trials": 20})
    assert resumed.stdout == f"going on with cats in {place}\nsearch resume {place}\n", resumed
    assert yaml_of(working / "study.yaml")["budget"] == {"trials": 20}
    assert Path(yaml_of(working / "study.yaml")["model"]).read_text() == "weights"
    refused = job(tmp_path, root=root, weights="others")
    assert refused.stderr.startswith(f"error: {place} began as another study: it differs in model/model.pt;")
    assert job(tmp_path, root="s3://gone").stderr == "error: there is no such bucket\n"


def test_the_place_of_a_study() -> None:
    assert folder_of("cats", "~/root/") == "~/root/studies/cats"
    assert folder_of("cats", "/what?/x") == "/what?/x/studies/cats"
    assert folder_of("cats", "gs://lab/") == "gs://lab/studies/cats"
    with pytest.raises(UserError, match="leave the password out"):
        folder_of("cats", "s3://key:word@lab")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weights": "others"}, "model/model.pt"),
        ({"seed": 1, "data": "/there/other.yaml"}, "data, seed"),
        ({"space": "detect-full"}, "space"),
    ],
)
def test_another_study_does_not_go_on_in_its_folder(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    assert job(tmp_path).returncode == 0
    root = tmp_path / "home" / "root"
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    refused = job(tmp_path, **changes)
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith(f"error: {root}/studies/cats began as another study: it differs in {named};")
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before


def test_a_folder_that_is_not_ours_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "root" / "studies" / "cats"
    folder.mkdir(parents=True)
    write(folder / "study.yaml")
    assert "holds a study that was not submitted" in job(tmp_path).stderr


def test_a_study_that_never_began_can_be_corrected(tmp_path: Path) -> None:
    assert job(tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "home" / "root" / "studies")
    assert "starting cats" in job(tmp_path, weights="others", seed=1).stdout


def test_what_the_image_lacks_is_named(tmp_path: Path) -> None:
    refused = job(tmp_path, dependencies='["typer>=0.1", "no-such-package>=1"]')
    assert refused.stderr.startswith("error: the cluster's image lacks no-such-package>=1; submit with --install")
    assert not (tmp_path / "home").exists()
