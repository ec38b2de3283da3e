"""Bundles that are served in a process of their own, and requests to them."""

from __future__ import annotations

import importlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLOUD = ROOT / "search" / "bundle" / "cloud"
START = 240  # seconds


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response as a whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server that runs; ``lines`` gets what it prints."""

    port: int
    process: subprocess.Popen[str]
    lines: queue.Queue[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(status=answer.status, headers=dict(answer.headers), body=answer.read())
        finally:
            connection.close()

    def predict(self, body: bytes, kind: str = "image/png") -> Answer:
        return self.ask("POST", "/predict", body, Content_Type=kind)

    def stopped(self) -> tuple[int, str]:
        """Its exit code, and what it printed last."""
        code = self.process.wait(timeout=60)
        last = ""
        while not self.lines.empty():
            last = self.lines.get()
        return code, last


@contextmanager
def serving(command: list[Any], own: Mapping[str, str] = os.environ, **settings: Any) -> Generator[Service]:
    """Runs a server until the block ends, with ``settings`` in its environment, which else is ``own``."""
    port = free_port()
    names = {f"BUNDLE_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [*map(str, command), f"--port={port}"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**own, **names},
    )
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout
    threading.Thread(target=lambda out: [lines.put(line.strip()) for line in out], args=[process.stdout]).start()
    try:
        while not (line := lines.get(timeout=START)).endswith("is ready"):
            assert process.poll() is None, line
        yield Service(port=port, process=process, lines=lines)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)


def search_serve(bundle: Path) -> list[Any]:
    return [sys.executable, "-m", "search", "serve", bundle]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def of_bundle(name: str) -> Any:
    """A module of a cloud bundle; its modules lie side by side there."""
    folders = [str(CLOUD), str(CLOUD.parent / "edge"), str(ROOT / "search" / "runtimes")]
    sys.path[:0] = folders
    try:
        return importlib.import_module(name)
    finally:
        for folder in folders:
            sys.path.remove(folder)
