"""Trials that are stopped at a rung, and trials whose worker is killed, on real Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from search.digit_scans import make_digit_scans
from search.store import Store
from search.timeline import overheads
from tests.integration.test_study import ROOT, make_study, search, searched

SPACE = """
image_size: 64
activation: [silu, relu]
prune:
  - {kind: channels, method: [l1, l2], ratio: [0.1, 0.3, 0.5, 0.7]}
finetune: {kind: train, epochs: 4, lr: [0.0005, 0.002]}
quantize: [{kind: fp32}, {kind: int8, images: 4}]
"""


def study(folder: Path, **changes: Any) -> Path:
    """A study of classifiers of digits, which know something after an epoch."""
    data = make_digit_scans(folder / "scans", counts={"train": 320, "val": 100, "test": 20})
    content = {"model": "yolov8n-cls.yaml", "data": str(data), "baseline": {"epochs": 2}, **changes}
    file = make_study(folder, resources={"concurrent": 1}, **content)
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    return file


def test_trials_that_fall_behind_are_stopped_at_a_rung(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rungs = {"base": 1, "eta": 2, "keep": 0.4, "grace": 2}
    search("run", study(tmp_path, budget={"trials": 6}, rungs=rungs), "--out", out)
    records = searched(out)
    stopped = [record for record in records if record["state"] == "stopped"]
    complete = [record for record in records if record["state"] == "complete"]
    assert stopped and complete and {record["state"] for record in records} <= {"stopped", "complete", "screened"}
    for record in stopped:
        done = record["curve"][-1][0]
        assert done in (1, 2) and [epoch for epoch, _ in record["curve"]] == [1, 2][:done]
        assert record["reason"] == f"behind the others after {done} of 4 epochs"
        assert record["artifact"] is None and record["measurement"]["accuracy"] is None
        assert record["measurement"]["latency"]["ratio"] > 0
    for record in complete:
        assert [epoch for epoch, _ in record["curve"]] == [1, 2, 4]
    plain = [record for record in complete if record["recipe"]["quantize"]["kind"] == "fp32"]
    assert all(r["curve"][-1][1] == r["measurement"]["accuracy"]["top1"] for r in plain)
    result = json.loads(search("front", out, "--json").stdout)
    assert not [member for member in result["front"] if member["recipe"] in [record["recipe"] for record in stopped]]
    assert result["states"]["stopped"] == len(stopped)
    # One worker did them all: from its second trial on, next to no time is lost between them.
    assert sorted(overheads(Store(out)))[1] <= 0.5
    assert "Beside shaping, training, evaluation and measurement" in (out / "report.md").read_text(encoding="utf-8")


def test_a_trial_whose_worker_is_killed_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    file = study(tmp_path, budget={"trials": 1}, rungs=None)
    command = [sys.executable, "-m", "search", "run", str(file), "--out", str(out)]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((out / "cache" / "stages").glob("*.state")) and time.monotonic() < deadline:
        assert driver.poll() is None, "the study ended before its worker could be killed"
        time.sleep(0.02)
    workers = [p.pid for p in psutil.Process(driver.pid).children(recursive=True) if "ImplicitFunc" in title(p)]
    assert workers, "there is no worker to kill"
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert driver.wait(300) == 0
    assert [record["state"] for record in searched(out)] == ["complete", "complete"]
    assert not list((out / "cache" / "stages").glob("*.state"))


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
