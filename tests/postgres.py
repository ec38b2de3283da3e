"""A PostgreSQL of our own: Debian's binaries, in a temporary folder, on a free port, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

PASSWORD = "correct-horse"


def binaries() -> Path | None:
    """Where Debian has the newest PostgreSQL's programs, or the path has them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


class Postgres:
    """A server that can be stopped and started again."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._place = Path(tempfile.mkdtemp(prefix="yfpg-", dir="/tmp"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("postgres" if _has_user("postgres") else "nobody")
            os.chown(self._place, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        word = self._place / "word"
        word.write_text(PASSWORD)
        word.chmod(0o644)
        command = [programs / "initdb", "-D", self._place / "data", "-U", "optuna", "-A", "scram-sha-256"]
        command += [f"--pwfile={word}", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run(command, cwd=self._place, check=True, capture_output=True, **self._as)
        self._process: subprocess.Popen[Any] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://optuna:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        import psycopg

        options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(self._place)]
        command = [self._programs / "postgres", "-D", self._place / "data", "-p", str(self.port), *options]
        with (self._place / "log").open("ab") as log:
            started = subprocess.Popen(command, cwd=self._place, stdout=log, stderr=log, **self._as)
        self._process = started
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                assert started.poll() is None and time.monotonic() < until, (self._place / "log").read_text()
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """Ends the server, whoever is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._place, ignore_errors=True)


def _has_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())
