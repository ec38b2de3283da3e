"""``python -m cluster`` as a user meets it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cluster.__main__ import app
from tests.dashboard import dashboard
from tests.unit.test_cluster_inputs import write

ROOT = Path(__file__).resolve().parents[2]
GROUP: Any = typer.main.get_command(app)


def cluster(*arguments: object, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    command = [sys.executable, *python, "-m", "cluster", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )  # fmt: skip


def test_help_loads_nothing_heavy() -> None:
    done = cluster("--help", python=("-X", "importtime"))
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "typer" in loaded and not loaded & {"ray", "torch", "search", "requests", "yaml"}
    assert all(name in done.stdout for name in ("submit", "status", "logs", "stop", "fetch", "list"))


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_every_command_shows_an_example_that_it_takes(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    example = re.search(r"Example: (python -m cluster .*)", shown.output)
    assert shown.exit_code == 0 and example is not None
    _, _, _, command, *arguments = shlex.split(example[1])
    assert command == name
    GROUP.commands[name].make_context(name, arguments)  # raises for an option that there is not


@pytest.mark.parametrize("command", ["submit STUDY", "status x", "logs x", "stop x", "fetch x", "list"])
def test_a_cluster_that_cannot_be_used_is_one_line(tmp_path: Path, command: str) -> None:
    write(tmp_path / "study.yaml")
    arguments = command.replace("STUDY", str(tmp_path / "study.yaml")).split()
    with dashboard(tmp_path) as head:
        head.body = '{"ray_version": "1.13.0"}'
        done = cluster(*arguments, "--address", head.address)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: the cluster at {head.address} runs Ray 1.13.0, here is Ray ")


def test_a_study_is_checked_before_the_cluster_is_asked(tmp_path: Path) -> None:
    file = write(tmp_path / "study.yaml", data="data.yaml")
    done = cluster("submit", file, "--address", "http://127.0.0.1:9")
    assert done.returncode == 2 and done.stderr.startswith("error: data: data.yaml is a path on this machine")
    both = cluster("submit", file, "--with-data", "--data", "/d.yaml")
    assert both.returncode == 2 and "give one of them" in both.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = cluster("--debug", "submit", tmp_path / "none.yaml")
    assert done.returncode == 1 and "Traceback" in done.stderr and "there is no study file" in done.stderr
