"""Serves the model of this bundle over HTTP until it is told to stop (Ctrl-C, SIGTERM), on this machine's own Ray.

    python server.py [--host H] [--port N] [--replicas N] …     # each option is explained by --help

A stop takes no new requests and waits for those that were begun. Errors are one line and exit code 2.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType

from settings import Settings, from_command_line

QUIET = 0.2  # seconds without any request after which none is left in the sockets
STOPPING = "BUNDLE_STOPPING"  # as guard.py reads it
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what listens there, answers here
# Read by Ray when it starts. Nothing is sent home.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "guard:middlewares",
}


def main() -> int:
    """Runs the command line; returns the exit code."""
    settings = from_command_line((__doc__ or "").split("\n")[0], os.environ)
    stop = threading.Event()
    _on_signals(stop)
    try:
        _check_free(settings)
        with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
            return _serve(settings, Path(folder), stop)
    except ImportError as error:
        here = Path(__file__).resolve().parent
        return _failed(f"{error}; python -m pip install -r {here / 'requirements.txt'}")
    except (OSError, RuntimeError) as error:  # as Ray says that a replica did not start
        return _failed(str(error))


def _failed(text: str) -> int:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return 2


def _check_free(settings: Settings) -> None:
    """Raises OSError if another server listens there, with which Ray Serve would share the port."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; give another") from None


def _serve(settings: Settings, folder: Path, stop: threading.Event) -> int:
    """Starts Ray and the application, waits, and ends both. ``folder`` is Ray's."""
    os.environ.update({**RAY_ENVIRONMENT, **settings.written(), STOPPING: str(folder / "stopping")})
    import ray
    from app import app, threads  # read the environment, as the workers do
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(
        address="local",
        num_cpus=settings.replicas * threads,  # enough for the copies, however few there are
        object_store_memory=256_000_000,
        include_dashboard=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder),
    )
    try:
        _on_signals(stop)  # again, since Ray sets its own
        logs = {"log_level": "ERROR", "enable_access_log": False}  # each refusal is a warning
        http = {"host": settings.host, "port": settings.port, "request_timeout_s": settings.seconds}
        serve.start(http_options=http, proxy_location="HeadOnly", logging_config=logs)
        serve.run(app, route_prefix="/", logging_config=logs)
        print(f"http://{settings.host}:{settings.port} is ready", flush=True)
        stop.wait()
        left, answered = _drain(settings, folder / "stopping")
        print(f"stopped: {answered} pictures answered, {left} requests left", flush=True)
        return 1 if left else 0
    finally:
        ray.shutdown()  # which ends Ray Serve too


def _on_signals(stop: threading.Event) -> None:
    def told(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told)


def _drain(settings: Settings, stopping: Path) -> tuple[int, int]:
    """Has new requests refused, and waits until those that were begun are answered, as ``_state`` says."""
    stopping.touch()
    busy = now = time.monotonic()
    end, left, answered = now + settings.grace, 0, 0
    while now < end and now - busy < QUIET:
        left, answered = _state(settings)
        time.sleep(0.02)
        now = time.monotonic()
        busy = now if left else busy
    return left, answered


def _state(settings: Settings) -> tuple[int, int]:
    """How many requests the guard still has, and how many pictures were answered; it says so when it refuses."""
    connection = HTTPConnection(EVERYWHERE.get(settings.host, settings.host), settings.port, timeout=5)
    try:
        connection.request("GET", "/health")
        headers = connection.getresponse().headers
        return int(headers.get("x-requests-left", 1)), int(headers.get("x-pictures-answered", 0))
    except (OSError, HTTPException):  # too busy to say
        return 1, 0
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
