"""Brings a study folder home through the Jobs API alone: small jobs on the head print its files into their logs.

The files gather in a folder beside the destination, which takes its place when every one of them has the size and the
SHA-256 that the cluster said. A fetch that is cut off goes on with what is whole there; a later one asks only for what
is new.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import UserError
from cluster.jobs import Jobs
from cluster.on_head import REQUEST
from cluster.package import Source, bytes_text, code_files, write_package
from cluster.places import is_url
from cluster.wire import PIECE, Entry, Piece, is_whole, pieces, read_index, read_pieces

NOTE = "fetched.json"  # in a fetched folder: from where
BATCH = 32 * PIECE  # bytes for each job
PATIENCE = 600.0  # seconds; the head may be busy


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """How much a folder has, and how much of it came over the network this time."""

    files: int
    bytes: int
    new_bytes: int


def fetch(jobs: Jobs, folder: str, out: Path, progress: Callable[[str], object] = lambda text: None) -> Fetched:
    """Makes ``out`` what the study folder ``folder`` on the cluster's head is.

    Raises:
        UserError: there is no such study, ``out`` is something else, or a file did not arrive whole; ``out`` is as
            it was.
    """
    note = {"address": jobs.cluster.address, "folder": folder}
    _check_place(out, note)
    everything = is_url(folder)  # the search's own code brings it to the head
    entries = read_index(_run(jobs, f"index {shlex.quote(folder)}", {}, everything=everything))
    partial = out.with_name(f".{out.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    wanted = [entry for entry in entries if not is_whole(partial, entry)]
    for entry in wanted if out.is_dir() else []:
        if is_whole(out, entry):
            (partial / entry.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(out / entry.path, partial / entry.path)
    wanted = [entry for entry in wanted if not is_whole(partial, entry)]
    total, come = sum(entry.size for entry in wanted), 0
    for batch in _batches(pieces(wanted)):
        request = json.dumps({"folder": folder, "pieces": [asdict(piece) for piece in batch]}).encode()
        log = _run(jobs, "send", {REQUEST: request}, everything=everything)
        _write(partial, batch, read_pieces(log, batch))
        come += sum(piece.length for piece in batch)
        progress(f"{bytes_text(come)} of {bytes_text(total)}")
    _check_whole(partial, wanted)
    _take_place(partial, out, entries, note)
    return Fetched(files=len(entries), bytes=sum(entry.size for entry in entries), new_bytes=total)


def _check_place(out: Path, note: dict[str, str]) -> None:
    """Only what was fetched from the same folder is replaced: a study that was run here is not ours to overwrite."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if not os.path.lexists(out):
        return
    file = out / NOTE
    if not file.is_file() or json.loads(file.read_text(encoding="utf-8")).get("folder") != note["folder"]:
        raise UserError(
            f"{out} is there already and was not fetched from {note['folder']}; give another place with --out"
        )


def _run(jobs: Jobs, command: str, files: dict[str, Source], *, everything: bool) -> str:
    """What a small job of ours on the head printed; with the code of this package alone, or ``everything``."""
    job = f"fetch-{uuid.uuid4().hex[:12]}"
    code = {name: source for name, source in code_files().items() if everything or name.startswith("cluster/")}
    with tempfile.TemporaryDirectory() as place:
        package = Path(place) / "package.zip"
        write_package({**code, **files}, package)
        jobs.submit(package, f"python -m cluster.on_head {command}", job=job, metadata={})
    state = jobs.wait(job, patience=PATIENCE)
    log = jobs.logs(job)
    jobs.delete(job)
    if state.status != "SUCCEEDED":
        own = [line for line in log.splitlines() if line.startswith("error: ")]
        raise UserError(
            own[-1].removeprefix("error: ") if own else f"the job that fetches failed: {state.message.strip()}"
        )
    return log


def _batches(wanted: list[Piece]) -> Iterator[list[Piece]]:
    """Pieces of ``BATCH`` bytes or a little more."""
    batch: list[Piece] = []
    for piece in wanted:
        batch.append(piece)
        if sum(piece.length for piece in batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _write(partial: Path, batch: list[Piece], contents: list[bytes]) -> None:
    for piece, content in zip(batch, contents, strict=True):
        file = partial / piece.path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("r+b" if file.is_file() and piece.offset else "wb") as handle:
            handle.seek(piece.offset)
            handle.write(content)


def _check_whole(partial: Path, wanted: list[Entry]) -> None:
    for entry in wanted:
        if entry.size == 0:
            (partial / entry.path).parent.mkdir(parents=True, exist_ok=True)
            (partial / entry.path).touch()
        if not is_whole(partial, entry):
            (partial / entry.path).unlink()
            raise UserError(f"{entry.path} changed while it was fetched; fetch again, what is whole is kept")


def _take_place(partial: Path, out: Path, entries: list[Entry], note: dict[str, str]) -> None:
    """Leaves in ``partial`` what the cluster has and nothing else, and puts it at ``out``."""
    known = {entry.path for entry in entries}
    for file in [file for file in partial.rglob("*") if file.is_file()]:
        if file.relative_to(partial).as_posix() not in known:
            file.unlink()
    (partial / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
