"""Other ways to run a bundle for the cloud: as its container does, and on a server that speaks Triton's protocol."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.bundles import bundle_of, picture
from tests.lively import lively_model
from tests.served import free_port, serving
from tests.tiny import SIZE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(lively_model(), tmp_path_factory.mktemp("bundle"), size=SIZE, place="cloud")


def run_bundle(bundle: Path, *arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, *map(str, arguments)]
    return subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def speaking_triton(repository: Path) -> Iterator[str]:
    """A server of the KServe protocol, version 2, as far as one model with binary tensors goes."""
    model: Any = onnxruntime.InferenceSession(str(repository / "yolo/1/model.onnx"), providers=["CPUExecutionProvider"])
    [item], [result] = model.get_inputs(), model.get_outputs()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v2/models/yolo"
            inputs = [{"name": item.name, "datatype": "FP32", "shape": item.shape}]
            self.reply({"inputs": inputs, "outputs": [{"name": result.name, "datatype": "FP32"}]})

        def do_POST(self) -> None:
            assert self.path == "/v2/models/yolo/infer"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            length = int(self.headers["Inference-Header-Content-Length"])
            [told] = json.loads(body[:length])["inputs"]
            assert told["parameters"]["binary_data_size"] == len(body) - length
            tensor = np.frombuffer(body[length:], dtype=np.float32).reshape(told["shape"])
            [output] = model.run(None, {told["name"]: tensor})
            shown = {"name": result.name, "datatype": "FP32", "shape": output.shape}
            self.reply({"outputs": [shown]}, output.tobytes())

        def reply(self, told: Any, binary: bytes = b"") -> None:
            text = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Inference-Header-Content-Length", str(len(text)))
            self.send_header("Content-Length", str(len(text) + len(binary)))
            self.end_headers()
            self.wfile.write(text + binary)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_boxes_by_triton_are_those_of_the_runner(bundle: Path, tmp_path: Path) -> None:
    picture(5).save(tmp_path / "one.png")
    alone = json.loads(run_bundle(bundle, "run.py", tmp_path / "one.png", "--json").stdout)
    with speaking_triton(bundle / "triton") as url:
        done = run_bundle(bundle, "triton_client.py", tmp_path / "one.png", "--url", url)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["source"] == alone["source"]
    assert [box["class"] for box in told["boxes"]] == [box["class"] for box in alone["boxes"]] != []
    for name, most in (("box", 0.05), ("score", 1e-3)):
        found, expected = ([box[name] for box in one["boxes"]] for one in (told, alone))
        np.testing.assert_allclose(found, expected, atol=most)
    away = run_bundle(bundle, "triton_client.py", tmp_path / "one.png", "--url", f"http://127.0.0.1:{free_port()}")
    assert away.returncode == 2 and away.stderr.count("\n") == 1 and "is the server there" in away.stderr


def test_what_keeps_a_server_from_starting_is_one_line(bundle: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_bundle(bundle, "server.py", "--port", taken.getsockname()[1])
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot listen on 127.0.0.1:" in done.stderr
    bare = run_bundle(bundle, "-S", "server.py")  # -S: no installed packages
    assert bare.returncode == 2 and bare.stderr.count("\n") == 1
    assert f"python -m pip install -r {bundle / 'requirements.txt'}" in bare.stderr


@pytest.mark.slow  # installs Ray
def test_it_runs_as_its_container_does_in_an_environment_with_its_requirements_only(
    bundle: Path, tmp_path: Path
) -> None:
    folder, app = tmp_path / "environment", tmp_path / "app"
    shutil.copytree(bundle, app)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    wanted = ["--requirement", app / "requirements.txt", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*pip, "install", "--quiet", *wanted], check=True)
    listed = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, text=True, check=True)
    assert not {"torch", "ultralytics", "onnx"} & {package["name"].lower() for package in json.loads(listed.stdout)}

    steps = (app / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    health = json.loads(next(line for line in steps if line.startswith("HEALTHCHECK")).split("CMD", 1)[1])
    command = json.loads(next(line for line in steps if line.startswith("CMD")).removeprefix("CMD"))
    own = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with serving([python, app / command[1]], own) as service:
        told = service.predict((app / "sample.png").read_bytes()).told
        alone = json.loads(run_bundle(app, "run.py", "sample.png", "--json", python=python).stdout)
        assert [box["class"] for box in told["boxes"]] == [box["class"] for box in alone["boxes"]] != []
        for name, most in (("box", 0.05), ("score", 1e-3)):
            found, expected = ([box[name] for box in one["boxes"]] for one in (told, alone))
            np.testing.assert_allclose(found, expected, atol=most)
        checked = [subprocess.run([python, *health[1:]], env=own | {"BUNDLE_PORT": str(port)}, check=False)
                   for port in (service.port, free_port())]  # fmt: skip
        assert [one.returncode for one in checked] == [0, 1]
        load = run_bundle(app, "load.py", service.url, "--seconds", 2, "--clients", 2, "--json", python=python)
        assert (load.returncode, set(json.loads(load.stdout)["statuses"])) == (0, {"200"})
        service.process.send_signal(signal.SIGTERM)
        code, last = service.stopped()
    count = 1 + json.loads(load.stdout)["statuses"]["200"]
    assert (code, last) == (0, f"stopped: {count} pictures answered, 0 requests left")
