"""The command line as a user meets it: quick help with examples, one-line errors, and JSON that is nothing else."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from search.__main__ import app
from search.store import Store
from spaces.recipe import ChannelPrune, Recipe
from tests.fakes import make_baseline, make_record

ROOT = Path(__file__).resolve().parents[2]
GROUP: Any = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def search(*arguments: object, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, "-m", "search", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder with a baseline and two finished records."""
    folder = tmp_path_factory.mktemp("study")
    content = {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": 64}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    fast = make_record(Recipe(image_size=64, prune=ChannelPrune(ratio=0.5)), accuracy=0.4, latency=0.3)
    good = make_record(Recipe(image_size=64, activation="relu"), accuracy=0.6, latency=0.8)
    Store(folder).append([make_baseline(), fast, good])
    return folder


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = search("--help", python=("-X", "importtime"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # seconds of CPU time
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "typer" in loaded
    assert not loaded & {"torch", "ray", "ultralytics", "onnxruntime", "optuna", "numpy", "matplotlib"}
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_it_takes(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert shown.exit_code == 0
    example = re.search(r"Example: (python -m search .*)", shown.output)
    assert example is not None
    python, flag, package, command, *arguments = shlex.split(example[1])
    assert (python, flag, package, command) == ("python", "-m", "search", name)
    GROUP.commands[name].make_context(name, arguments)  # raises for an option that there is not


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_shows_its_whole_text(name: str) -> None:
    """Brackets in it would be taken for a style, and left out."""
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", shown.output).split())
    texts = [help_text for option in GROUP.commands[name].params if (help_text := getattr(option, "help", None))]
    assert [text for text in texts if " ".join(text.split()[-2:]) not in words] == []


def test_no_command_shows_the_help() -> None:
    done = search()
    assert "Usage: python -m search" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run TMP/none.yaml", "there is no study file TMP/none.yaml; write one as the README shows, or run the demo"),
        ("run TMP/bad.yaml", "TMP/bad.yaml: model is missing"),
        ("run TMP/bad.yaml --set nonsense", "--set nonsense: expected key=value, such as --set budget.trials=8"),
        ("resume TMP/none", "TMP/none is no study folder: it has no study.yaml"),
        ("front TMP", "TMP is no study folder: it has no study.yaml"),
        ("front TMP/empty", "TMP/empty has no baseline yet; go on with `python -m search resume TMP/empty`"),
        ("front nothing://a/b", "nothing://a/b cannot be opened"),
        ("report s3://me:word@bucket/a", "a URL with a password ends up in logs"),
        ("resume TMP/none --work TMP/w", "--work is for a study behind a URL, and TMP/none is a folder"),
        ("front STUDY --pick best", "--pick best: allowed are recommended, knee, fastest, smallest, most-accurate"),
        (
            "apply TMP/none.yaml --model m.pt --data d.yaml --out TMP/out",
            "there is no recipe TMP/none.yaml; a study has one beside each artifact",
        ),
        ("apply TMP/bad.yaml --model m.pt --data d.yaml --out TMP/out", "TMP/bad.yaml: name: Extra inputs are not"),
        (
            "measure TMP/none.onnx",
            "there is no ONNX file at TMP/none.onnx; export the model first, or correct the path",
        ),
        ("measure TMP/bad.yaml", "cannot load TMP/bad.yaml"),
        ("demo --model a.pt --out TMP/d", "the demo trains an architecture, such as yolo11n.yaml; a.pt is none"),
        ("demo --model yolo11n-cls.yaml --out TMP/d", "model: yolo11n-cls.yaml is for classification, but"),
    ],
)
def test_a_users_error_is_one_line_that_says_what_to_do(
    tmp_path: Path, study: Path, arguments: str, message: str
) -> None:
    (tmp_path / "bad.yaml").write_text("name: cats\nimage_size: 64\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "study.yaml").write_text((study / "study.yaml").read_text())
    done = search(*arguments.replace("TMP", str(tmp_path)).replace("STUDY", str(study)).split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert message.replace("TMP", str(tmp_path)) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_study_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.jpg").touch()
    data = tmp_path / "data.yaml"
    data.write_text("{train: data, val: data, names: [cat]}")
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"name": "cats", "model": "yolov8n.pt", "data": str(data), "image_size": 64}))
    before = file.read_bytes()
    done = search("run", file, "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    text = f"error: {tmp_path} holds a study already; go on with `python -m search resume {tmp_path}`\n"
    assert done.stderr == text
    assert file.read_bytes() == before


@pytest.mark.parametrize("where", ["first", "last"])
def test_debug_shows_the_traceback(tmp_path: Path, where: str) -> None:
    arguments = ["front", tmp_path]
    done = search("--debug", *arguments) if where == "first" else search(*arguments, "--debug")
    assert done.returncode != 0
    assert "Traceback (most recent call last)" in done.stderr
    assert "is no study folder" in done.stderr


def test_front_json_is_one_object_and_nothing_else(study: Path) -> None:
    done = search("front", study, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert [member["accuracy"] for member in result["front"]] == [0.4, 0.6]
    assert result["baseline"]["record_id"] == "baseline"


def test_front_json_of_a_pick_has_that_member_alone(study: Path) -> None:
    done = search("front", study, "--pick", "fastest", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [member] = json.loads(done.stdout)["front"]
    assert member["latency_ratio"] == 0.3


def test_a_pick_for_people_says_which_picks_it_is(study: Path) -> None:
    done = search("front", study, "--pick", "most-accurate")
    [row] = [line for line in done.stdout.splitlines() if "64px" in line and "baseline" not in line]
    assert "most-accurate" in row and "fastest" not in row


def test_a_pick_keeps_the_limits(study: Path) -> None:
    done = search("front", study, "--pick", "fastest", "--max-drop", "0.15", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [member["accuracy"] for member in json.loads(done.stdout)["front"]] == [0.6]
    none = search("front", study, "--pick", "fastest", "--max-size-mb", "0.000001")
    assert none.returncode == 2
    assert "no record is complete and within the constraints and limits" in none.stderr


def test_front_is_a_table_for_people(study: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "search", "front", study],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "mAP50-95" in done.stdout
    assert f"Next: python -m search front {study} --pick recommended" in done.stdout


def test_front_changes_nothing_in_the_folder(study: Path) -> None:
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    search("front", study)
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before


def test_doctor_json_is_one_object_and_its_exit_code_says_whether_a_search_can_run() -> None:
    done = search("doctor", "--json")
    result = json.loads(done.stdout)
    assert set(result) == {"host", "checks"}
    assert result["host"]["logical_cores"] == os.cpu_count()
    assert all(check["advice"] for check in result["checks"] if not check["ok"])
    missing = [check for check in result["checks"] if check["required"] and not check["ok"]]
    assert done.returncode == (2 if missing else 0)
