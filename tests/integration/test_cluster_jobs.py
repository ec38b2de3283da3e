"""A study as a job on a real Ray cluster with token authentication: submitted, stopped, resumed, fetched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.clusters import BENCH, ROOT, RayCluster, lines_of, out_of, ray_cluster, write_study
from tests.tiny import SHORT, files_below, tiny_model

MADE_FOR_ITSELF = ("cache/", "data/", ".lock")


@pytest.fixture
def head() -> Iterator[RayCluster]:
    with ray_cluster(cpus=2, resources=BENCH) as started:
        started.wait_until_there()
        yield started


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr


def record_ids(folder: Path) -> list[str]:
    return [record["id"] for record in lines_of(folder / "records.jsonl")]


def results_in(folder: Path) -> dict[str, str]:
    return {name: sha for name, sha in files_below(folder).items() if not name.startswith(MADE_FOR_ITSELF)}


@pytest.mark.timeout(1200)  # some 25 commands, each a process, beside other tests
def test_a_study_runs_as_a_job_and_comes_home(head: RayCluster, tmp_path: Path) -> None:
    study, there, home = write_study(tmp_path, trials=12), head.home / "yolo-front/studies/tiny", tmp_path / "home"
    first = out_of(head.run("submit", study, "--with-data")).strip()
    assert "runs already, as job " + first in one_line_error(head.run("submit", study, "--with-data"))
    until = time.monotonic() + 240
    while len(record_ids(there)) < 3:
        state = json.loads(out_of(head.run("status", first, "--json")))
        assert state["status"] in ("PENDING", "RUNNING") and time.monotonic() < until, head.run("logs", first)
        time.sleep(0.5)

    assert f"{first}  STOPPED" in out_of(head.run("stop", first))
    kept = record_ids(there)
    assert 3 <= len(kept) < 1 + 2 * 12
    assert "trial 1/12" in out_of(head.run("logs", first))
    out_of(head.run("fetch", first, "--out", home))
    assert record_ids(home) == kept

    # The same study with another budget goes on; what it has is neither lost nor made again.
    done = len(kept) // 2
    second = out_of(head.run("submit", write_study(tmp_path, trials=done + 1), "--with-data")).strip()
    followed = head.run("logs", second, "--follow")
    assert followed.returncode == 0, followed
    assert "going on with tiny" in followed.stdout and f"trial {done + 1}/{done + 1}" in followed.stdout
    assert out_of(head.run("logs", second)) == followed.stdout
    ended = record_ids(there)
    assert ended[: len(kept)] == kept and len(set(ended)) == len(ended) == 1 + 2 * (done + 1)
    listed = json.loads(out_of(head.run("list", "--json")))
    assert [(job["id"], job["status"]) for job in listed] == [(second, "SUCCEEDED"), (first, "STOPPED")]

    fetched = json.loads(out_of(head.run("fetch", "tiny", "--out", home, "--json")))
    assert 0 < fetched["new_bytes"] < fetched["bytes"]
    assert results_in(home) == {**results_in(there), "fetched.json": files_below(home)["fetched.json"]}
    command = [sys.executable, "-m", "search", "front", str(home), "--json"]
    front = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert front["records"] == len(ended) - 1 and len(front["front"]) >= 1

    refused(head, tmp_path, home)
    head.stop()
    assert f"no Ray cluster answers at {head.address}" in one_line_error(head.run("status", first))


def refused(head: RayCluster, folder: Path, home: Path) -> None:
    """What is not possible is one line, and changes nothing."""
    (folder / "wrong").write_text("0" * 64)
    for arguments in (("list",), ("submit", folder / "study.yaml", "--with-data"), ("fetch", "tiny")):
        error = one_line_error(head.run(*arguments, token=folder / "wrong"))
        assert "refuses the token from --token-file" in error and "0" * 64 not in error
    assert "there is no job none at" in one_line_error(head.run("logs", "none", "--follow"))
    before = files_below(home)
    shutil.copytree(home, folder / "own", ignore=shutil.ignore_patterns("fetched.json"))
    assert "was not fetched from" in one_line_error(head.run("fetch", "tiny", "--out", folder / "own"))
    assert "there is no study in" in one_line_error(head.run("fetch", "other", "--out", folder / "other"))
    assert files_below(home) == before and not (folder / "other").exists()
    torch.save({"model": tiny_model(seed=1, architecture=SHORT)}, folder / "model.pt")
    third = out_of(head.run("submit", folder / "study.yaml", "--with-data")).strip()
    followed = head.run("logs", third, "--follow")
    assert followed.returncode == 1 and "began as another study: it differs in model/model.pt" in followed.stdout
