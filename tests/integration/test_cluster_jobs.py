"""A study as a job on a real Ray cluster with token authentication: submitted, stopped, resumed, fetched."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from search.digits import make_digits
from tests.tiny import SHORT, files_below, tiny_model

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
image_size: 64
activation: [silu, relu, hardswish]
prune: [{kind: none}, {kind: channels, ratio: [0.25, 0.5]}]
finetune: {kind: none}
quantize: [{kind: fp32}, {kind: int8, images: 4}]
"""
MADE_FOR_ITSELF = ("cache/", "data/", ".lock")


@dataclass(frozen=True)
class Head:
    """A cluster of one node: its dashboard, its token, the home folder of its jobs, and its process."""

    address: str
    token_file: Path
    home: Path
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Ends every process of this cluster and no other's."""
        if self.process.poll() is not None:
            return
        own = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()  # it would wait for the others
        for each in own:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.terminate()
        for each in psutil.wait_procs(own, timeout=10)[1]:
            each.kill()
        self.process.wait(10)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.fixture
def head() -> Iterator[Head]:
    place = Path(tempfile.mkdtemp(prefix="yfh-", dir="/tmp"))  # short: Ray's sockets are below it
    home, token_file = place / "home", place / "token"
    home.mkdir()
    token_file.write_text(secrets.token_hex(32))
    port, dashboard, client, agent, metrics = free_ports(5)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "HOME": str(home),
        "RAY_TMPDIR": str(place),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    command += ['--resources={"bench:onnxruntime-cpu": 1}']
    command += ["--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=true"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    with (place / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=place, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    started = Head(f"http://127.0.0.1:{dashboard}", token_file, home, process)
    try:
        until = time.monotonic() + 120
        while cluster(started, "list").returncode != 0:
            assert process.poll() is None and time.monotonic() < until, (place / "head.log").read_text()
            time.sleep(0.5)
        yield started
    finally:
        started.stop()
        shutil.rmtree(place, ignore_errors=True)


def cluster(head: Head, *arguments: object, token: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster", *map(str, arguments)]
    command += ["--address", head.address, "--token-file", str(token or head.token_file)]
    environment = {**os.environ, "RAY_ADDRESS": "http://127.0.0.1:1"}  # Ray's client would take it before ours
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )  # fmt: skip


def out_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr


def write_study(folder: Path, trials: int) -> Path:
    """A study of a tiny untrained detector that trains nothing, whose paths lead into ``folder``."""
    if not (folder / "model.pt").exists():
        make_digits(folder / "digits", image_size=64, counts={"train": 16, "val": 8, "test": 2})
        torch.save({"model": tiny_model(architecture=SHORT)}, folder / "model.pt")
        (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    content = {
        "name": "tiny",
        "model": str(folder / "model.pt"),
        "data": str(folder / "digits" / "data.yaml"),
        "image_size": 64,
        "space": str(folder / "space.yaml"),
        "target": {"runs": 10},
        "budget": {"trials": trials},
        "engine": {"screen": False},
        "resources": {"concurrent": 1},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "study.yaml"


def record_ids(folder: Path) -> list[str]:
    file = folder / "records.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line)["id"] for line in lines if line.endswith("\n")]


def results_in(folder: Path) -> dict[str, str]:
    return {name: sha for name, sha in files_below(folder).items() if not name.startswith(MADE_FOR_ITSELF)}


@pytest.mark.timeout(1200)  # some 25 commands, each a process, beside other tests
def test_a_study_runs_as_a_job_and_comes_home(head: Head, tmp_path: Path) -> None:
    study, there, home = write_study(tmp_path, trials=12), head.home / "yolo-front/studies/tiny", tmp_path / "home"
    first = out_of(cluster(head, "submit", study, "--with-data")).strip()
    assert "runs already, as job " + first in one_line_error(cluster(head, "submit", study, "--with-data"))
    until = time.monotonic() + 240
    while len(record_ids(there)) < 3:
        state = json.loads(out_of(cluster(head, "status", first, "--json")))
        assert state["status"] in ("PENDING", "RUNNING") and time.monotonic() < until, cluster(head, "logs", first)
        time.sleep(0.5)

    assert f"{first}  STOPPED" in out_of(cluster(head, "stop", first))
    kept = record_ids(there)
    assert 3 <= len(kept) < 1 + 2 * 12
    assert "trial 1/12" in out_of(cluster(head, "logs", first))
    out_of(cluster(head, "fetch", first, "--out", home))
    assert record_ids(home) == kept

    # The same study with another budget goes on; what it has is neither lost nor made again.
    done = len(kept) // 2
    second = out_of(cluster(head, "submit", write_study(tmp_path, trials=done + 1), "--with-data")).strip()
    followed = cluster(head, "logs", second, "--follow")
    assert followed.returncode == 0, followed
    assert "going on with tiny" in followed.stdout and f"trial {done + 1}/{done + 1}" in followed.stdout
    assert out_of(cluster(head, "logs", second)) == followed.stdout
    ended = record_ids(there)
    assert ended[: len(kept)] == kept and len(set(ended)) == len(ended) == 1 + 2 * (done + 1)
    listed = json.loads(out_of(cluster(head, "list", "--json")))
    assert [(job["id"], job["status"]) for job in listed] == [(second, "SUCCEEDED"), (first, "STOPPED")]

    fetched = json.loads(out_of(cluster(head, "fetch", "tiny", "--out", home, "--json")))
    assert 0 < fetched["new_bytes"] < fetched["bytes"]
    assert results_in(home) == {**results_in(there), "fetched.json": files_below(home)["fetched.json"]}
    command = [sys.executable, "-m", "search", "front", str(home), "--json"]
    front = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert front["records"] == len(ended) - 1 and len(front["front"]) >= 1

    refused(head, tmp_path, home)
    head.stop()
    assert f"no Ray cluster answers at {head.address}" in one_line_error(cluster(head, "status", first))


def refused(head: Head, folder: Path, home: Path) -> None:
    """What is not possible is one line, and changes nothing."""
    (folder / "wrong").write_text("0" * 64)
    for arguments in (("list",), ("submit", folder / "study.yaml", "--with-data"), ("fetch", "tiny")):
        error = one_line_error(cluster(head, *arguments, token=folder / "wrong"))
        assert "refuses the token from --token-file" in error and "0" * 64 not in error
    assert "there is no job none at" in one_line_error(cluster(head, "logs", "none", "--follow"))
    before = files_below(home)
    shutil.copytree(home, folder / "own", ignore=shutil.ignore_patterns("fetched.json"))
    assert "was not fetched from" in one_line_error(cluster(head, "fetch", "tiny", "--out", folder / "own"))
    assert "there is no study in" in one_line_error(cluster(head, "fetch", "other", "--out", folder / "other"))
    assert files_below(home) == before and not (folder / "other").exists()
    torch.save({"model": tiny_model(seed=1, architecture=SHORT)}, folder / "model.pt")
    third = out_of(cluster(head, "submit", folder / "study.yaml", "--with-data")).strip()
    followed = cluster(head, "logs", third, "--follow")
    assert followed.returncode == 1 and "began as another study: it differs in model/model.pt" in followed.stdout
