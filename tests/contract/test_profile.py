"""A profile on the command line: the keys that docs/measuring.md explains, and reasons for what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.__main__ import app
from search.measure.apart import Apart
from search.measure.pairs import Effort
from search.measure.pictures import camera_picture
from search.stages.export import export_onnx
from search.target import Target
from spaces.recipe import Export
from tests.loops import save_loop
from tests.tiny import SIZE, tiny_model

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "measuring.md"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    narrow = export_onnx(tiny_model(width=0.0625), Export(), image_size=SIZE, path=folder / "narrow.onnx")
    wide = export_onnx(tiny_model(width=0.25), Export(), image_size=SIZE, path=folder / "wide.onnx")
    return narrow, wide


def test_the_command_adds_what_the_document_explains(models: tuple[Path, Path]) -> None:
    usual = ["measure", str(models[0]), "--against", str(models[1]), "--runs", "10", "--json"]
    plain = json.loads(CliRunner().invoke(app, usual).stdout)
    found = json.loads(CliRunner().invoke(app, [*usual, "--profile", "--batch", "3", "--streams", "2"]).stdout)
    [table] = re.findall(r"^## More than latency\n(.*?)(?:^## |\Z)", DOCUMENT.read_text("utf-8"), re.M | re.S)
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    explained = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    assert set(found) - set(plain) == explained
    assert (found["batch"], found["streams"]) == (3, 2)
    assert found["peak_memory_mb"] < found["against_peak_memory_mb"]
    for name in ("throughput_batch1", "throughput_batchN", "throughput_streams"):
        low, high = found[f"{name}_ratio_ci"]
        assert 1 < low <= found[f"{name}_ratio"] <= high
        assert found[name] > found[f"against_{name}"] > 0
    assert found["end_to_end_ratio"] < 1
    assert found["end_to_end_missing"] is found["throughput_batchN_missing"] is None


def test_what_cannot_be_had_has_its_reason(tmp_path: Path) -> None:
    """A file that is no model of pictures, and whose inner shapes are for one row."""
    loop = save_loop(tmp_path / "loop.onnx", 50)
    with Apart(Target()) as apart:
        found = apart.profile(loop, baseline=loop, images=[camera_picture()], batch=4)
        child = apart.pid
        latency = apart.measure(loop, Effort(runs=10), baseline=loop)
        assert apart.pid == child
    assert latency.runs == 10
    assert found.throughput.rate > 0
    assert found.memory[0] is not None
    assert "takes no colour picture" in found.missing["end_to_end"]
    assert found.flat()["end_to_end_ms_p50"] is None
    assert found.streams >= 1
    assert (found.throughput_batch is None) == ("throughput_batch" in found.missing)
