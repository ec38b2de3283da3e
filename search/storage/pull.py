"""Brings a working folder up to date from its URL. Nothing that only this folder has is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from search.storage.location import Entry, Location
from search.storage.logs import LOGS, merged, read_log, whole_lines_of
from search.storage.working import Known, Working, stamp
from search.store import write_atomically

THREADS = 8
LOCAL = frozenset({"cache", "data"})  # remade on every machine
LARGE = frozenset({"artifacts", "baseline", "bundles"})  # not needed to see what was found

Parts = dict[str, list[bytes]]


def pull(working: Working, location: Location, *, whole: bool, last_writer: str) -> Parts:
    """Brings what the URL has and returns its logs, part by part.

    Logs are read before anything else is looked for: an artifact is there before the record that names it, so a record
    that is brought has its artifact. A file that changed there wins over one that changed here; logs have all lines.

    Args:
        working: the folder; its note is written.
        location: its URL.
        whole: artifacts and the baseline too.
        last_writer: the working folder that wrote last; if it is this one, what it wrote is there as it is here.

    Raises:
        OSError: the place does not answer, or refuses.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        parts = {name: read_log(location, name, pool) for name in LOGS}
        wanted = {
            name: entry
            for name, entry in _listed(location, whole).items()
            if not _is_known(working, name, entry, mine=last_writer == working.writer)
        }
        came = pool.map(lambda name: location.download(name, working.folder / name), wanted)
        for (name, entry), there in zip(wanted.items(), came, strict=True):
            if there and (here := stamp(working.folder / name)) is not None:
                # If it was replaced after it was listed, this is the older one's stamp, and it will be brought again.
                working.files[name] = Known(here=here, there=_stamp_of(entry))
    for name, there in parts.items():
        path = working.folder / name
        here = whole_lines_of(path)
        if (both := merged(name, b"".join(there), here)) != here:
            write_atomically(path, both.decode())
    working.save()
    return parts


def _listed(location: Location, whole: bool) -> dict[str, Entry]:
    """The files there that belong into the working folder, without logs."""
    found: dict[str, Entry] = {}
    for name, entry in location.entries(recursive=False).items():
        if name.startswith(".") or name in LOCAL or name in LOGS or (name in LARGE and not whole):
            continue
        if entry is not None:
            found[name] = entry
        else:
            found |= {path: inner for path, inner in location.entries(name).items() if inner is not None}
    return {name: entry for name, entry in found.items() if not any(part.startswith(".") for part in name.split("/"))}


def _is_known(working: Working, name: str, entry: Entry, *, mine: bool) -> bool:
    """Whether the file there is the one that this folder has, or had before it was changed here."""
    known = working.files.get(name)
    if known is None or stamp(working.folder / name) is None:
        return False
    if known.there is None:
        return mine and known.here[0] == entry.size
    return known.there == _stamp_of(entry)


def _stamp_of(entry: Entry) -> list[int]:
    return [entry.size, entry.written]
