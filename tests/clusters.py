"""A real Ray cluster on this machine: nodes as ``ray start`` processes, a token, and a small study to run there.

Every node has an address of its own in the loopback network, by which Ray tells machines apart, and a temporary
folder of its own, so that no two share sockets, logs or what was shipped to them.
"""

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
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from search.digits import make_digits
from tests.tiny import SHORT, tiny_model

ROOT = Path(__file__).resolve().parents[1]
BENCH = {"bench:onnxruntime-cpu": 1}
NETWORK = "127.0.1."  # Ray takes 127.0.0.1 for the address of the machine
PATIENCE = 120.0  # seconds; beside other tests
SPACE = """
image_size: 64
activation: [silu, relu, hardswish]
prune: [{kind: none}, {kind: channels, ratio: [0.25, 0.5]}]
finetune: {kind: none}
quantize: [{kind: fp32}, {kind: int8, images: 4}]
"""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One ``ray start --block``, its address and its log."""

    ip: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """SIGKILL for all its processes, as when a machine loses its power."""
        if self.process.poll() is None:
            own = psutil.Process(self.process.pid)
            for each in [*own.children(recursive=True), own]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            self.process.wait(10)


class RayCluster:
    """A head with a dashboard that wants a token, and what is added to it. ``home`` is the home folder of its jobs.

    Args:
        place: an empty folder with a short path: Ray's sockets are below it.
        cpus: of the head.
        resources: of the head.
    """

    def __init__(self, place: Path, *, cpus: int, resources: Mapping[str, float]) -> None:
        self._place, self.nodes = place, list[Node]()
        self.home, self.token_file = place / "home", place / "token"
        self.home.mkdir()
        self.token_file.write_text(secrets.token_hex(32))
        port, dashboard, client = free_ports(3)
        self._gcs, self.address = f"{NETWORK}1:{port}", f"http://127.0.0.1:{dashboard}"
        own = ["--head", f"--port={port}", f"--ray-client-server-port={client}", "--include-dashboard=true"]
        self._start([*own, "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"], cpus, 0, resources)

    def wait_until_there(self) -> None:
        """Until every node that runs has joined."""
        running = [node.ip for node in self.nodes if node.process.poll() is None]
        self.wait(lambda: bool(running) and set(self.alive()) >= set(running))

    def add(self, *, cpus: int, gpus: int = 0, resources: Mapping[str, float] | None = None) -> Node:
        """Starts another node, which joins within seconds."""
        self.wait(self._answers)
        return self._start([f"--address={self._gcs}"], cpus, gpus, resources or {})

    def run(self, *arguments: object, token: Path | None = None) -> subprocess.CompletedProcess[str]:
        """``python -m cluster`` with these arguments, for this cluster."""
        command = [sys.executable, "-m", "cluster", *map(str, arguments)]
        command += ["--address", self.address, "--token-file", str(token or self.token_file)]
        environment = {**os.environ, "RAY_ADDRESS": "http://127.0.0.1:1"}  # Ray's client would take it before ours
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )  # fmt: skip

    def state(self, what: str) -> list[dict[str, Any]]:
        """All of ``nodes``, ``actors`` or ``tasks`` that Ray knows, also those that are gone, by its State API."""
        headers = {"Authorization": f"Bearer {self.token_file.read_text()}"}
        request = urllib.request.Request(f"{self.address}/api/v0/{what}?limit=10000&detail=1", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]["result"]["result"]

    def alive(self) -> list[str]:
        """The addresses of the nodes that are there."""
        with contextlib.suppress(OSError):  # the dashboard comes up after the rest
            return [node["node_ip"] for node in self.state("nodes") if node["state"] == "ALIVE"]
        return []

    def wait(self, holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Until ``holds`` does; fails with the nodes' own words after so many seconds."""
        until = time.monotonic() + seconds
        while not holds():
            said = {node.ip: node.log.read_text(errors="replace")[-2000:] for node in self.nodes}
            assert time.monotonic() < until, said
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends every process of this cluster and no other's."""
        for node in reversed(self.nodes):
            node.kill()

    def _answers(self) -> bool:
        ip, port = self._gcs.split(":")
        with socket.socket() as probe:
            return probe.connect_ex((ip, int(port))) == 0

    def _start(self, own: list[str], cpus: int, gpus: int, resources: Mapping[str, float]) -> Node:
        ip = f"{NETWORK}{len(self.nodes) + 1}"
        folder = self._place / str(len(self.nodes))
        folder.mkdir()
        agent, metrics = free_ports(2)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *own]
        command += [f"--node-ip-address={ip}", f"--temp-dir={folder}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        command += [f"--resources={json.dumps(dict(resources))}", "--object-store-memory=100000000"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        log = folder / "start.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=self._environment(),
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.nodes.append(Node(ip=ip, process=process, log=log))
        return self.nodes[-1]

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "RAY_TMPDIR"}}
        return inherited | {
            "HOME": str(self.home),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_health_check_period_ms": "1000",  # a dead node is noticed after a few seconds, not 15
            "RAY_health_check_failure_threshold": "3",
            "RAY_worker_niceness": "0",  # beside other tests, trials at nice 15 would wait for all of them
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }


@contextlib.contextmanager
def ray_cluster(*, cpus: int, resources: Mapping[str, float]) -> Iterator[RayCluster]:
    """A cluster whose head has so many CPUs and these resources; all of it is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="yfh-", dir="/tmp"))
    started = RayCluster(place, cpus=cpus, resources=resources)
    try:
        yield started
    finally:
        started.stop()
        shutil.rmtree(place, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def out_of(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that went well printed."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_study(folder: Path, trials: int, *, space: str = SPACE, **changes: Any) -> Path:
    """A study of a tiny untrained detector, whose paths lead into ``folder``, with sections of it changed."""
    if not (folder / "model.pt").exists():
        make_digits(folder / "digits", image_size=64, counts={"train": 16, "val": 8, "test": 2})
        torch.save({"model": tiny_model(architecture=SHORT)}, folder / "model.pt")
        (folder / "space.yaml").write_text(space, encoding="utf-8")
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
        "final": None,
        **changes,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "study.yaml"


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file that another process may be writing."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
