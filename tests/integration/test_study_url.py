"""A real search on real Ray into an S3, killed in the middle, and resumed from its URL by another machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import search.__main__  # noqa: F401 - all commands
from search.commands.app import app
from search.errors import UserError
from search.storage.mirror import bring
from tests.buckets import Bucket, running_bucket
from tests.clusters import write_study

ROOT = Path(__file__).resolve().parents[2]
TRIALS = 4


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with running_bucket("lab") as found:
        yield found


def finished(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "search", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return done


def ids(folder: Path) -> list[str]:
    """The records' ids in their order; each has its file, whole."""
    path = folder / "records.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for record in records:
        if record["artifact"] is not None:
            content = (folder / record["artifact"]["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == record["artifact"]["sha256"]
    return [record["id"] for record in records]


@pytest.mark.timeout(1200)  # several searches, each a process, beside other tests
def test_a_killed_study_goes_on_elsewhere_from_its_url_alone(bucket: Bucket, tmp_path: Path) -> None:
    study, url = write_study(tmp_path, TRIALS), bucket.url("studies/tiny")
    first, second = tmp_path / "first", tmp_path / "second"
    assert "there is no such bucket" in refused("run", study, "--out", bucket.url("x", bucket="nobody"))
    command = [sys.executable, "-m", "search", "run", str(study), "--out", url, "--work", str(first)]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while len(ids(bring(url, whole=True, work=tmp_path / "reader"))) < 3:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < until
        time.sleep(0.5)
    assert f"in use by another search, process {driver.pid}" in refused("resume", url, "--work", second)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    killed = ids(bring(url, work=tmp_path / "reader"))
    shutil.rmtree(first)  # the machine is gone

    assert f"trial {TRIALS}/{TRIALS}" in finished("resume", url, "--work", second).stdout
    found = ids(bring(url, work=tmp_path / "reader"))
    assert found[: len(killed)] == killed and found == ids(second)
    assert len(set(found)) == len(found) == 1 + 2 * TRIALS
    front = json.loads(CliRunner().invoke(app, ["front", url, "--json"]).stdout)
    assert front == json.loads((second / "front.json").read_text()) and front["states"] == {"complete": 2 * TRIALS}
    for name in ("report.html", "front.svg", "study.yaml", "baseline/model.onnx"):
        assert (tmp_path / "reader" / name).read_bytes() == (second / name).read_bytes()
    assert "holds a study already" in refused("run", study, "--out", url)
    assert not (tmp_path / "reader" / "cache").exists() and not (tmp_path / "reader" / "data").exists()


def refused(*arguments: object) -> str:
    error = CliRunner().invoke(app, list(map(str, arguments))).exception
    assert isinstance(error, UserError), error
    return str(error)
