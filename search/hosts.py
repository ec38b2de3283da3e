"""The machines that a study is measured on: milliseconds and ratios of different ones are never put side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from search.errors import UserError
from search.measure.host import HostInfo
from search.record import Record
from search.store import Store, write_atomically


def note_hosts(folder: Path, store: Store, hosts: Mapping[str, HostInfo]) -> None:
    """Writes ``host.json``, where the main target is measured, and ``hosts.json`` with all machines by target.

    Machines of targets that are not there now stay in it.

    Args:
        folder: the study folder.
        store: its records.
        hosts: the machine of each target that is there, the main one first.

    Raises:
        UserError: the study's baseline was measured on another machine.
    """
    for target, host in hosts.items():
        if (before := baseline_host(store.baseline, target)) and before != host.id:
            raise UserError(
                f"{folder} was measured for {target} on a machine with the fingerprint {before}, and here is {host.id} "
                f"({host.cpu}): their latencies cannot be compared. Go on where it was begun, or start a new study "
                f"with warm_start: [{folder}]; doctor --json shows what a fingerprint is made of"
            )
    path = folder / "hosts.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {target: asdict(host) for target, host in hosts.items()}
    write_atomically(folder / "host.json", json.dumps(next(iter(found.values())), indent=2) + "\n")
    write_atomically(path, json.dumps(known | found, indent=2) + "\n")


def baseline_host(baseline: Record | None, target: str) -> str | None:
    """The id of the machine on which the baseline was measured for a target; None if it was not."""
    if baseline is None:
        return None
    other = baseline.elsewhere.get(target)
    measured = other.measurement if other else baseline.measurement
    return measured.host if measured else None
