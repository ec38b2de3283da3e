"""Checksums of a bundle's files, as ``sha256sum -c`` reads them, and the bundle as one archive."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

SUMS = "SHA256SUMS"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: the same files give the same archive
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: Path) -> None:
    """Writes the sums of all files in ``folder``."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in names(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def wrong_sums(folder: Path) -> list[str]:
    """What is not as ``SHA256SUMS`` says, a few words for each file; empty if all is."""
    path = folder / SUMS
    if not path.is_file():
        return [f"{SUMS} is missing"]
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [_LINE.fullmatch(line) for line in lines]
    if not all(found) or not found:
        return [f"{SUMS} is no list of checksums"]
    expected = {match[2]: match[1] for match in found if match}
    there = set(names(folder))
    return [
        *(f"{name} is missing" for name in sorted(expected.keys() - there)),
        *(f"{name} is not in {SUMS}" for name in sorted(there - expected.keys())),
        *(
            f"{name} was changed"
            for name in sorted(there & expected.keys())
            if _digest(folder / name) != expected[name]
        ),
    ]


def names(folder: Path) -> list[str]:
    """The paths of a bundle's files, but for the sums and for what Python leaves behind when it runs."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    return sorted(file.as_posix() for file in files if file.as_posix() != SUMS and "__pycache__" not in file.parts)


def write_zip(folder: Path, archive: Path) -> None:
    """Packs ``folder``, under its name, into ``archive``, without times and owners."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name in [*names(folder), SUMS]:
            entry = zipfile.ZipInfo(f"{archive.stem}/{name}", date_time=EPOCH)
            entry.external_attr, entry.create_system = 0o100644 << 16, 3  # a plain file, on Unix
            target.writestr(entry, (folder / name).read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
