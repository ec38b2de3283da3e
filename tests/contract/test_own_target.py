"""A target is added as docs/adding-a-target.md says, and is measured on."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from search.__main__ import app
from search.errors import UserError
from search.measure.target_checks import check_runs
from search.stages.export import export_onnx
from search.study import StudyConfig
from search.target import load_target
from spaces.parse import parse_space
from spaces.recipe import Export
from tests.tiny import SIZE, tiny_model
from tests.unit.test_docs import indented_block

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = "docs/adding-a-target.md"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The document's file, in a folder that commands are run from."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "board.yaml"
    file.write_text(yaml.safe_dump(indented_block(DOCUMENT, "# board.yaml")), encoding="utf-8")
    return file


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """The document's two files, beside the target's."""
    sizes = {"model.onnx": SIZE // 2, "baseline.onnx": 4 * SIZE}
    return [
        str(export_onnx(tiny_model(), Export(), image_size=size, path=tmp_path / name)) for name, size in sizes.items()
    ]


@pytest.mark.usefixtures("models")
def test_the_command_in_the_document_measures_on_it(board: Path) -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    [line] = re.findall(r"^    (.* measure model\.onnx .*)$", text, re.M)
    python, *arguments = shlex.split(line)
    assert python == ".venv/bin/python"
    command = [sys.executable, *arguments, "--runs", "20", "--seconds", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    result = json.loads(done.stdout)
    assert result["threads"] == 2
    assert 0 < result["latency_ratio"] < 0.5  # a sixty-fourth of the pixels


def test_the_effort_is_the_targets_and_what_is_given_wins(board: Path, models: list[str]) -> None:
    board.write_text(board.read_text(encoding="utf-8").replace("runs: 400", "runs: 11"), encoding="utf-8")
    done = CliRunner().invoke(app, ["measure", *models[:1], "--target", "board.yaml", "--threads", "1", "--json"])
    result = json.loads(done.stdout)
    assert (result["target"], result["runs"], result["threads"]) == ("board", 11, 1)


def test_a_study_takes_it_and_refuses_a_space_that_it_does_not_run(board: Path) -> None:
    own = indented_block(DOCUMENT, "# in study.yaml")
    config = StudyConfig.model_validate(
        {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": 64, "space": "demo", **own}
    )
    assert [target.name for target in config.targets] == ["board", "onnxruntime-cpu"]
    assert (config.target.slot, config.target.opset, config.target.runs) == ("bench:board", 13, 400)
    check_runs(config.targets, config.load_space())
    with pytest.raises(UserError, match="board"):
        check_runs(config.targets, parse_space({"quantize": {"kind": "fp16"}}, name="half", image_size=64))


def test_a_key_that_is_not_known_is_refused(board: Path) -> None:
    board.write_text(board.read_text(encoding="utf-8") + "cpu: 4\n", encoding="utf-8")
    with pytest.raises(UserError, match="cpu"):
        load_target("board.yaml")
