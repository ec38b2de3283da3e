"""One writer for a study behind a URL: an object that says who writes there, and is written anew while they live.

Object stores have no locks, and pyarrow has no conditional writes. So a lease is written, and read again a moment
later: of several that came at once the last one written stays. Whoever finds the lease of another watches it. If it is
renewed, its owner lives, and the lease is refused; if it stays as it is for much longer than a renewal takes, its owner
is gone, and it is taken over. That compares no clocks of different machines.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

from search.storage.location import Location, StorageError

NAME = ".lease.json"
RENEW = 15.0  # seconds between renewals
ABANDONED = 60.0  # seconds without a renewal, after which the owner is gone
SETTLE = 1.0  # seconds until a lease that was written at the same moment would be seen
LOOK = 1.0


class LeaseLostError(StorageError):
    """Another driver took the lease over, after this one had not renewed it for long."""


def last_writer(location: Location) -> str:
    """The working folder that wrote last to a location, or does now; empty if none did. Raises OSError."""
    return str(_read(location).get("writer", ""))


class Lease:
    """The right to write at a location.

    Args:
        location: the study's.
        writer: names the working folder, which stays the same from one driver to the next.
    """

    def __init__(self, location: Location, writer: str) -> None:
        self._location, self._writer = location, writer
        self._token = uuid.uuid4().hex
        self._renewed = -1.0
        self.before = ""  # the working folder that wrote last

    def acquire(self) -> None:
        """Takes the lease.

        Raises:
            StorageError: another driver holds it.
            OSError: the place does not answer.
        """
        found = self._found()
        if found.get("owner") and not _died_here(found):
            self._watch(found)
        self.before = last_writer(self._location)
        self._write(self._token)
        time.sleep(SETTLE)
        if (now := self._found()).get("owner") != self._token:
            raise StorageError(self._refusal(now))

    def renew(self) -> None:
        """Writes the lease anew, if that is due.

        Raises:
            LeaseLostError: it belongs to another driver now.
        """
        if time.monotonic() - self._renewed < RENEW:
            return
        found = self._found()
        if found.get("owner") != self._token:
            raise LeaseLostError(
                f"{self._location.url} was taken over by {found.get('host')} while this driver could not be heard of"
            )
        self._write(self._token)

    def release(self) -> None:
        """Lets the next driver in at once. The working folder that wrote last stays noted."""
        if self._found().get("owner") == self._token:
            self._write("")

    def _watch(self, found: dict[str, Any]) -> None:
        """Waits until the owner of ``found`` shows that it lives, which is refused, or was silent for long."""
        if _here(found):  # and its process is there
            raise StorageError(self._refusal(found))
        until = time.monotonic() + ABANDONED
        while time.monotonic() < until:
            time.sleep(LOOK)
            now = self._found()
            if not now.get("owner"):
                return
            if (now["owner"], now["turn"]) != (found["owner"], found["turn"]):
                raise StorageError(self._refusal(now))

    def _refusal(self, found: dict[str, Any]) -> str:
        return (
            f"{self._location.url} is in use by another search, process {found.get('pid')} on {found.get('host')}; "
            "wait for it or choose another place. If that machine is gone, try again: "
            f"a lease that is not renewed for {ABANDONED:.0f} seconds is taken over"
        )

    def _found(self) -> dict[str, Any]:
        return _read(self._location)

    def _write(self, owner: str) -> None:
        content = {
            "owner": owner,
            "turn": uuid.uuid4().hex,
            "writer": self._writer,
            "host": platform.node(),
            "pid": os.getpid(),
            "began": psutil.Process().create_time(),  # a process id may be given to another one later
            "machine": _machine(),
        }
        self._location.write(NAME, json.dumps(content).encode())
        self._renewed = time.monotonic()


def _read(location: Location) -> dict[str, Any]:
    content = location.read(NAME)
    return json.loads(content) if content else {}


def _machine() -> str:
    """Names what process ids belong to: this boot of this machine, and the container; empty where it has no name."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return f"{boot.read_text().strip()} {space.readlink()}" if boot.is_file() and space.is_symlink() else ""


def _here(found: dict[str, Any]) -> bool:
    return bool(found["machine"]) and found["machine"] == _machine()


def _died_here(found: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine that is no more."""
    if not _here(found):
        return False
    try:
        process = psutil.Process(found["pid"])
        return process.create_time() != found["began"] or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
