"""The tutorial's commands: each is one that there is, and one after the other they lead where it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from search.__main__ import app
from search.results import open_study
from search.study import StudyConfig
from tests.unit.test_docs import indented_block

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = "docs/tutorial.md"
GROUP: Any = typer.main.get_command(app)


def commands(document: str) -> list[str]:
    """What a document has a reader type: lines after ``$`` in it, and indented lines of this project's programs."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^(?:\$ |    (?=\.venv/bin/python -m search))(.*)$", text, re.M)


@pytest.mark.parametrize("document", [TUTORIAL, "docs/picking.md", "docs/adding-a-target.md"])
def test_every_command_is_one_that_there_is(document: str) -> None:
    own = [shlex.split(command)[3:] for command in commands(document) if " -m search " in command]
    assert own
    for name, *arguments in own:
        GROUP.commands[name].make_context(name, arguments)  # raises for a command or option that there is not


def test_the_study_is_one_that_needs_no_download() -> None:
    config = StudyConfig.model_validate(indented_block(TUTORIAL, "# yaml-language-server"))
    assert config.model.endswith(".yaml")
    assert config.name == "tutorial"
    assert config.load_space().name == "demo"


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_commands_lead_from_data_to_boxes(tmp_path: Path) -> None:
    text = re.search(r"^    # yaml-language-server.*(?:\n    .*)*", (ROOT / TUTORIAL).read_text(encoding="utf-8"), re.M)
    assert text
    (tmp_path / "study.yaml").write_text(re.sub("^    ", "", text[0], flags=re.M), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    outputs = list[str]()
    for command in commands(TUTORIAL):
        own = command.replace(".venv/bin/python", sys.executable).replace("/tmp/device", str(tmp_path / "device"))
        if " search run " in own:
            own += " --set budget.trials=1"
        words = shlex.split(own)
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs.append(done.stdout)
        print(f"$ {command}\n{done.stdout}{done.stderr}")
    config, store = open_study(tmp_path / "results" / "tutorial")
    assert config.name == "tutorial"
    assert store.searched
    assert (tmp_path / "results" / "tutorial" / "report.html").is_file()
    answer = json.loads(outputs[-1])
    assert {box["label"] for box in answer["boxes"]} <= set("0123456789")
    assert answer["boxes"]
