"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.errors import UserError


def write_files(files: dict[str, str], folder: Path, *, force: bool) -> list[Path]:
    """Writes all ``files``, by name, into ``folder``; readers never see half a file.

    Raises:
        UserError: one is there with other content, unless ``force``, or the folder cannot be written to.
    """
    paths = {folder / name: text for name, text in files.items()}
    changed = [path for path, text in paths.items() if path.is_file() and path.read_text(encoding="utf-8") != text]
    if changed and not force:
        raise UserError(f"{changed[0]} is there with other content; --force replaces it")
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in paths}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in paths.items():
            temporary[path].write_text(text, encoding="utf-8")
        for path, written in temporary.items():
            if path.suffix == ".sh":
                written.chmod(0o755)
            os.replace(written, path)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    finally:
        for written in temporary.values():
            if written.exists():
                written.unlink()
    return list(paths)
