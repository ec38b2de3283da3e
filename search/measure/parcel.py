"""A model file, or a folder of files, as one value that can be sent to another machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """``files`` are the contents by path below ``name``; a single file has the path "."."""

    name: str
    files: dict[str, bytes]

    @property
    def sha256(self) -> str:
        """Of a file its own; of a folder that of its paths and contents, in order."""
        if set(self.files) == {"."}:
            return hashlib.sha256(self.files["."]).hexdigest()
        digest = hashlib.sha256()
        for path, content in sorted(self.files.items()):
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    @property
    def size(self) -> int:
        """Of all contents, in bytes."""
        return sum(map(len, self.files.values()))

    def unpack(self, folder: Path) -> Path:
        """Writes it into ``folder`` and returns the path of the file or folder."""
        target = folder / self.name
        for path, content in self.files.items():
            file = target if path == "." else target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return target


def pack(path: Path) -> Parcel:
    """The file or the folder at ``path``."""
    if path.is_file():
        return Parcel(name=path.name, files={".": path.read_bytes()})
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    return Parcel(name=path.name, files={file.relative_to(path).as_posix(): file.read_bytes() for file in inside})
