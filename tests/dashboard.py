"""A stand-in for the dashboard of a Ray cluster: real HTTP, and jobs that are processes in what was uploaded."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any


class Dashboard(ThreadingHTTPServer):
    """Answers ``/api/version`` with ``status`` and ``body``; without its ``token``, 401 or 403 as Ray does.

    ``place`` is where jobs are unpacked; ``logs_of`` may change what a job's log has, given its number from 0.
    """

    def __init__(self, place: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.place = place
        self.token: str | None = None
        self.status, self.body = 200, json.dumps({"version": "4", "ray_version": version("ray")})
        self.packages: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.finished: list[str] = []  # logs
        self.logs_of: Callable[[int, str], str] = lambda number, log: log

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def submit(self, request: dict[str, Any]) -> None:
        """Runs a job to its end."""
        job = request["submission_id"]
        folder = self.place / job
        with zipfile.ZipFile(BytesIO(self.packages[request["runtime_env"]["working_dir"]])) as package:
            package.extractall(folder)
        python, *arguments = shlex.split(request["entrypoint"])
        assert python == "python"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        log = self.logs_of(len(self.finished), "INFO job_manager.py:581 -- Runtime env is setting up.\n" + done.stdout)
        self.finished.append(log)
        self.jobs[job] = {
            "type": "SUBMISSION",
            "submission_id": job,
            "status": "FAILED" if done.returncode else "SUCCEEDED",
            "entrypoint": request["entrypoint"],
            "metadata": request["metadata"],
            "log": log,
        }


class _Handler(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        path = self.path.strip("/").split("/")
        if not self._allowed():
            return
        if path[1] == "version":
            self._answer(self.server.status, self.server.body)
        elif path[1] == "packages":
            self._answer(200 if f"{path[2]}://{path[3]}" in self.server.packages else 404, "")
        elif len(path) == 2:
            self._answer(200, json.dumps([_public(job) for job in self.server.jobs.values()]))
        elif path[2] not in self.server.jobs:
            self._answer(404, f"Job {path[2]} does not exist")
        elif path[3:] == ["logs"]:
            self._answer(200, json.dumps({"logs": self.server.jobs[path[2]]["log"]}))
        else:
            self._answer(200, json.dumps(_public(self.server.jobs[path[2]])))

    def do_PUT(self) -> None:
        _, _, protocol, name = self.path.strip("/").split("/") if self._allowed() else ("", "", "", "")
        self.server.packages[f"{protocol}://{name}"] = self._content()
        self._answer(200, "")

    def do_POST(self) -> None:
        request = json.loads(self._content())
        self.server.submit(request)
        self._answer(200, json.dumps({"job_id": request["submission_id"], "submission_id": request["submission_id"]}))

    def do_DELETE(self) -> None:
        del self.server.jobs[self.path.strip("/").split("/")[2]]
        self._answer(200, json.dumps({"deleted": True}))

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization")
        if self.server.token is None or given == f"Bearer {self.server.token}":
            return True
        self._answer(403 if given else 401, "Forbidden" if given else "Unauthorized: Missing authentication token")
        return False

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _public(job: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name != "log"}


@contextmanager
def dashboard(place: Path) -> Iterator[Dashboard]:
    """A dashboard on a free port of this machine."""
    server = Dashboard(place)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
