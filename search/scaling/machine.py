"""Real studies on this machine's cores: the same trials with one worker, two, and so on, each on one core."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search.digits import make_digits
from search.measure.host import usable_cores
from search.store import whole_lines

ROOT = Path(__file__).resolve().parents[2]
# Every trunk of this space is a trial, so each number of workers has the same work to do.
SPACE = """
activation: [silu, relu]
prune: [{kind: none}, {kind: channels, ratio: [0.25, 0.5, 0.75]}]
finetune: {kind: train, epochs: 2}
quantize: [{kind: fp32}, {kind: int8, images: 8}]
"""
TRIALS = 8
IMAGE_SIZE = 96
COUNTS = {"train": 64, "val": 32, "test": 2}


@dataclass(frozen=True, kw_only=True)
class Real:
    """A real study with so many workers: from its first trial's start to its last record, in seconds.

    ``speedup`` is against the first number of workers, ``efficiency`` that as a share of the ideal.
    """

    workers: int
    trials: int
    seconds: float
    trials_per_minute: float
    speedup: float
    efficiency: float


def real(workers: Sequence[int]) -> list[Real]:
    """The study with each number of workers that this machine has cores for, the first of them the reference."""
    fitting = [count for count in workers if count <= usable_cores()]
    with tempfile.TemporaryDirectory(prefix="yolo-front-scaling-") as name:
        folder = Path(name)
        study = _write_study(folder)
        seconds = [_run(study, folder / str(count), count) for count in fitting]
    return [
        Real(
            workers=count,
            trials=TRIALS,
            seconds=own,
            trials_per_minute=60 * TRIALS / own,
            speedup=seconds[0] / own,
            efficiency=seconds[0] / own * fitting[0] / count,
        )
        for count, own in zip(fitting, seconds, strict=True)
    ]


def _write_study(folder: Path) -> Path:
    """A study of handwritten digits, whose model is trained from scratch for one epoch."""
    content: dict[str, Any] = {
        "name": "scaling",
        "model": "yolov8n.yaml",
        "data": str(make_digits(folder / "digits", image_size=IMAGE_SIZE, counts=COUNTS)),
        "image_size": IMAGE_SIZE,
        "space": str(folder / "space.yaml"),
        "target": {"runs": 60},
        "baseline": {"epochs": 1},
        "budget": {"trials": TRIALS},
        "engine": {"screen": False, "starts": False},
        "final": None,
    }
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "study.yaml"


def _run(study: Path, out: Path, workers: int) -> float:
    """Seconds of the search, in a process of its own as a user has it."""
    command = [sys.executable, "-m", "search", "run", str(study), "--out", str(out)]
    command += ["--set", f"resources.concurrent={workers}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    begun = min(json.loads(line)["at"] for line in whole_lines(out / "started.jsonl"))
    records = [json.loads(line) for line in whole_lines(out / "records.jsonl")]
    states = {record["state"] for record in records}
    assert states == {"complete"}, f"a trial of {out} ended as {states}"
    return max(record["at"] for record in records) - begun
