"""The one file that a job brings along: this repository's code, and what the study needs from this machine.

It is written by an allow-list, so that data, results, caches, notebooks and secrets beside the code stay at home, and
to the same bytes for the same content, so that the cluster takes it once.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 100 * 2**20  # bytes; Ray takes less than this over HTTP (GCS_STORAGE_MAX_SIZE)
TOP_FILES = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")
NOT_SHIPPED = frozenset({"tests", "results"})
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file knows

Source = Path | bytes


def code_files(root: Path = ROOT) -> dict[str, Source]:
    """Every file of the Python packages at ``root`` but tests, caches and hidden ones, by its path, and a few beside.

    A package is a folder with an ``__init__.py``.
    """
    packages = [place.parent for place in sorted(root.glob("*/__init__.py")) if place.parent.name not in NOT_SHIPPED]
    found = {name: root / name for name in TOP_FILES if (root / name).is_file()}
    for package in packages:
        found |= {str(file.relative_to(root)): file for file in sorted(package.rglob("*")) if _is_code(file, root)}
    return dict(found)


def _is_code(file: Path, root: Path) -> bool:
    parts = file.relative_to(root).parts
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return file.is_file() and not hidden and file.suffix not in {".pyc", ".pt", ".onnx", ".cache"}


def write_package(files: Mapping[str, Source], to: Path, *, limit: int = LIMIT) -> None:
    """Writes ``files``, content by path, as the zip file ``to``.

    Raises:
        UserError: it would be larger than a cluster takes; says what is large and where to put it.
    """
    written = 0
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as package:
        for name in sorted(files):
            source = files[name]
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            package.writestr(entry, source.read_bytes() if isinstance(source, Path) else source, zipfile.ZIP_DEFLATED)
            written += entry.compress_size
            if written >= limit:  # the rest need not be read
                raise _too_large(files, limit)
    if to.stat().st_size >= limit:
        raise _too_large(files, limit)


def size(source: Source) -> int:
    """In bytes."""
    return source.stat().st_size if isinstance(source, Path) else len(source)


def _too_large(files: Mapping[str, Source], limit: int) -> UserError:
    """Says how large the code, the data set, the model and the rest are."""
    sums: dict[str, int] = {}
    for name, source in files.items():
        parts = name.split("/")
        part = parts[1] if parts[0] == "inputs" else "code"
        sums[part] = sums.get(part, 0) + size(source)
    shares = ", ".join(f"{part} {bytes_text(count)}" for part, count in sorted(sums.items(), key=lambda item: -item[1]))
    return UserError(
        f"the upload has {bytes_text(sum(sums.values()))} ({shares}) and a cluster takes {bytes_text(limit)}; put what "
        "is large on a path that all of the cluster's nodes see, and give that: --data PATH, or model in the study file"
    )


def bytes_text(count: float) -> str:
    """Such as ``12.3 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
