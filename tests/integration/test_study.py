"""A real study on real Ray: digits at 64 px, models trained for one epoch, and kills in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import yaml
from ultralytics.nn.tasks import DetectionModel

from search.digits import make_digits
from search.front import PICKS
from search.store import Store
from tests.shared import made_once
from tests.tiny import SHORT, tiny_model

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
image_size: 64
activation: [silu, relu]
prune:
  - kind: none
  - {kind: channels, ratio: [0.25, 0.5]}
finetune:
  - kind: none
  - {kind: train, epochs: 1}
quantize: [{kind: fp32}, {kind: int8, images: 4}]
"""


def make_study(folder: Path, **changes: Any) -> Path:
    """A study file in ``folder`` with its own data, model and space; it measures nothing twice unless told so."""
    data = make_digits(folder / "digits", image_size=64, counts={"train": 16, "val": 8, "test": 4})
    torch.save({"model": tiny_model(architecture=SHORT)}, folder / "tiny.pt")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    content = {
        "name": "tiny",
        "model": str(folder / "tiny.pt"),
        "data": str(data),
        "image_size": 64,
        "space": str(folder / "space.yaml"),
        "target": {"runs": 10},
        "budget": {"trials": 3},
        "final": None,
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def search(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "search", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=check, timeout=540)


def lines_of(folder: Path) -> list[str]:
    path = folder / "records.jsonl"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def searched(folder: Path) -> list[dict[str, Any]]:
    return [record for record in map(json.loads, lines_of(folder)) if record["id"] != "baseline"]


def trunks(folder: Path) -> set[str]:
    """The trunk of every searched record, by its content."""
    leaf = ("quantize", "export")
    return {json.dumps({k: v for k, v in r["recipe"].items() if k not in leaf}) for r in searched(folder)}


def handed_out(folder: Path) -> int:
    """How many trials were begun."""
    return len((folder / "started.jsonl").read_text(encoding="utf-8").splitlines())


def run(folder: Path) -> None:
    out = folder / "out"
    trained = {"model": "yolov8n.yaml", "baseline": {"epochs": 1}}
    file = make_study(folder, **trained, resources={"cpus_per_trial": 0.5}, final={})  # four fit on two cores
    printed = search("run", file, "--out", out).stdout
    assert "trial 3/3" in printed
    assert re.search(r"measuring the front.*\n.*  [0-9a-f]{12}: latency ×", printed)  # it may take hours: each is told
    assert "  baseline at 32 px: accuracy " in printed
    assert "left" in printed
    assert "\x1b" not in printed  # a pipe has lines, and no view
    assert f"python -m search front {out}" in printed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder after a whole run of three trials."""
    return made_once(tmp_path_factory, "run", run) / "out"


def test_a_study_ends_in_deployable_files(finished: Path) -> None:
    result = json.loads(search("front", finished, "--json").stdout)
    assert result == json.loads((finished / "front.json").read_text(encoding="utf-8"))
    assert result["states"] == {"complete": 6}
    assert result["baseline"]["size_ratio"] == 1.0
    for member in [result["baseline"], *result["front"]]:
        artifact = finished / member["artifact"]
        assert hashlib.sha256(artifact.read_bytes()).hexdigest() == member["sha256"]
        assert artifact.stat().st_size == member["size_bytes"]
        onnx.checker.check_model(onnx.load(artifact))
        assert member["test"]["images"] == 4  # the test split, measured once at the end
        low, high = member["latency_ratio_ci"]
        assert low <= member["latency_ratio"] <= high
        assert member["accuracy_ci"][0] <= member["accuracy"] <= member["accuracy_ci"][1]
        recipe = yaml.safe_load((artifact.parent / "recipe.yaml").read_text(encoding="utf-8"))
        assert recipe == member["recipe"]
    for name in ("report.md", "front.svg", "study.yaml", "host.json"):
        assert (finished / name).stat().st_size > 0


def test_the_front_was_measured_again_and_is_not_once_more(finished: Path) -> None:
    path, report = finished / "final.jsonl", finished / "report.md"
    finals = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    front = {member["record_id"] for member in json.loads((finished / "front.json").read_text())["front"]}
    timed = [final["record_id"] for final in finals if final["latency"]]
    assert front <= set(timed)
    assert max(timed.count(name) for name in timed) <= 3
    assert all(final["latency"]["runs"] > 10 for final in finals if final["latency"])  # more than the search's
    tested = [final["record_id"] for final in finals if final["accuracy"]]
    assert sorted(tested) == sorted({"baseline", *front})  # the search has seen the whole validation split
    text, measured = report.read_text(encoding="utf-8"), path.read_text(encoding="utf-8")
    report.unlink()
    search("finish", finished)
    assert report.read_text(encoding="utf-8") == text
    assert path.read_text(encoding="utf-8") == measured


def test_trials_share_cores(finished: Path) -> None:
    store = Store(finished)
    assert max(entry.at or 0 for entry in store.started) < min(record.at or 0 for record in store.searched)


def test_every_trunk_is_measured_under_every_quantization(finished: Path) -> None:
    kinds = [record["recipe"]["quantize"]["kind"] for record in searched(finished)]
    assert kinds == ["fp32", "int8"] * 3
    assert len(trunks(finished)) == 3
    shrunk = {r["measurement"]["parameters"] for r in searched(finished) if r["recipe"]["prune"]["kind"] != "none"}
    whole = {r["measurement"]["parameters"] for r in searched(finished) if r["recipe"]["prune"]["kind"] == "none"}
    assert max(shrunk) < min(whole)


def test_a_study_says_what_the_parts_of_its_picks_bring_and_trains_nothing_for_it(finished: Path) -> None:
    found = json.loads((finished / "contributions.json").read_text(encoding="utf-8"))
    front = json.loads((finished / "front.json").read_text(encoding="utf-8"))["front"]
    assert {pick["record_id"] for pick in found["picks"]} <= {member["record_id"] for member in front}
    assert sorted(name for pick in found["picks"] for name in pick["picks"]) == sorted(PICKS)
    rows = [row for pick in found["picks"] for row in pick["parts"]]
    free = [row for row in rows if not row["epochs"] or row["name"] == "quantization"]
    assert free and {row["state"] for row in free} == {"complete"}
    assert [row["state"] for row in found["rivals"]] == ["complete", "complete", "missing"]
    assert found["rivals"][-1]["reason"] == "there is none: yolov8n is the smallest of its family"
    assert "## What each part brings" in (finished / "report.md").read_text(encoding="utf-8")


def test_a_recipe_is_replayed_with_the_same_result(finished: Path, tmp_path: Path) -> None:
    record = next(r for r in searched(finished) if r["recipe"]["prune"]["kind"] != "none")
    recipe = finished / "artifacts" / record["id"] / "recipe.yaml"
    data = finished.parent / "digits" / "data.yaml"
    model = finished / "baseline" / "model.pt"
    out = tmp_path / "applied"
    printed = search("apply", recipe, "--model", model, "--data", data, "--out", out, "--json").stdout
    applied = json.loads(printed)
    assert applied["id"] == record["id"]
    assert applied["artifact"]["size_bytes"] == pytest.approx(record["artifact"]["size_bytes"], abs=64)
    assert applied["measurement"]["parameters"] == record["measurement"]["parameters"]
    assert {file.name for file in out.iterdir()} == {"model.onnx", "recipe.yaml", "measurement.json"}


def test_measure_prints_accuracy_and_the_paired_ratio(finished: Path) -> None:
    baseline = finished / "baseline" / "model.onnx"
    small = next(r for r in searched(finished) if r["recipe"]["quantize"]["kind"] == "int8")
    data = finished.parent / "digits" / "data.yaml"
    arguments = (finished / small["artifact"]["path"], "--against", baseline, "--data", data, "--split", "val")
    found = json.loads(search("measure", *arguments, "--runs", 20, "--json").stdout)
    assert found["accuracy"] == pytest.approx(small["measurement"]["accuracy"]["map50_95"], abs=1e-6)
    assert found["size_ratio"] == pytest.approx(small["measurement"]["size_ratio"])
    assert found["images"] == 8
    assert found["latency_ratio_ci"][0] <= found["latency_ratio"] <= found["latency_ratio_ci"][1]
    assert found["disturbed"] == any("used the memory" in doubt for doubt in found["doubts"])


def test_a_folder_in_use_or_finished_is_not_overwritten(finished: Path) -> None:
    refused = search("run", finished.parent / "study.yaml", "--out", finished, check=False)
    assert refused.returncode == 2
    assert f"python -m search resume {finished}" in refused.stderr


def test_a_killed_study_is_finished_by_resume(tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = make_study(tmp_path, budget={"trials": 4}, resources={"concurrent": 1})
    command = [sys.executable, "-m", "search", "run", str(study), "--out", str(out)]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(searched(out)) < 2 or handed_out(out) == len(trunks(out)):  # until the second trial is under way
        assert driver.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before, began = lines_of(out), trunks(out)
    handed = handed_out(out)
    assert handed > len(began), "nothing was in flight when the driver was killed"

    printed = search("resume", out).stdout
    after = lines_of(out)
    assert after[: len(before)] == before  # nothing lost, nothing written twice
    ids = [json.loads(line)["id"] for line in after]
    assert len(ids) == len(set(ids)) == 1 + 4 * 2
    assert len(trunks(out)) == 4
    assert "trial 4/4" in printed
    started = [json.loads(line)["recipe"] for line in (out / "started.jsonl").read_text().splitlines()]
    assert started[handed] == started[handed - 1]  # what was in flight was handed out first

    finals = (out / "final.jsonl").read_text(encoding="utf-8")
    again = search("resume", out)  # nothing is left to do
    assert lines_of(out) == after
    assert (out / "final.jsonl").read_text(encoding="utf-8") == finals
    assert "trial" not in again.stdout.split("searching")[0].replace("trials", "")


def test_a_bad_trial_costs_that_trial_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = make_study(tmp_path, resources={"trial_minutes": 1e-6})
    search("run", study, "--out", out)
    result = json.loads(search("front", out, "--json").stdout)
    assert result["states"] == {"complete": 2, "failed": 4}  # only the untrained start had time enough
    reasons = {record["reason"] for record in searched(out) if record["state"] == "failed"}
    assert all("TimeoutError" in reason and "minutes" in reason for reason in reasons)
    assert "TimeoutError" in (out / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("yolov8n.pt", "yolov8n.pt is not here"),  # a name that only the network could turn into a file
        ("broken.pt", "is no checkpoint that Ultralytics can load"),
        ("other.pt", "knows 3 classes, but"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_before_any_work(tmp_path: Path, model: str, message: str) -> None:
    path = tmp_path / model
    if model == "broken.pt":
        path.write_text("garbage\n", encoding="utf-8")
    elif model == "other.pt":
        torch.save({"model": DetectionModel("yolov8n.yaml", nc=3, verbose=False), "train_args": {}}, path)
    study = make_study(tmp_path, model=str(path) if path.exists() else model)
    refused = search("run", study, "--out", tmp_path / "out", check=False)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
