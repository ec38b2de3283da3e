"""Folders that fail under a study: full, gone or out of reach. That is no recipe's fault, so it ends the study.

A trial that fails because its disk is full would fail with any recipe. Were it recorded as failed, the recipe would
never be tried again; so nothing is recorded, and ``resume`` hands it out anew.
"""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from search.errors import FaultError, UserError

TOKEN = Path("cache") / "token"  # in the study folder
PROBE = 1 << 20  # bytes; a folder that does not take them is full
BROKEN = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is over its quota",
    errno.EROFS: "can no longer be written to",
    errno.EIO: "does not answer (input/output error)",
    errno.ESTALE: "is no longer there (stale file handle)",
    errno.ENOTCONN: "is no longer there (not connected)",
}


def mark(folder: Path) -> str:
    """The token of the study in ``folder``, made if it has none.

    It tells the folder from another of the same path: one that is empty since a disk is no longer mounted there, or
    that of another machine.
    """
    path = folder / TOKEN
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(secrets.token_hex(16), encoding="utf-8")
        os.replace(temporary, path)
    return path.read_text(encoding="utf-8")


def sees(folder: Path, token: str) -> bool:
    """Whether ``folder`` is, from here, the one that ``token`` was made for; any that is there, without a token."""
    try:
        return (folder / TOKEN).read_text(encoding="utf-8") == token if token else folder.is_dir()
    except OSError:
        return False


def fault_of(error: BaseException, folders: Sequence[Path], token: str = "") -> FaultError | None:
    """The fault of a folder that explains ``error``; None if there is none, so that the error is what it says.

    Libraries turn an error of the system into one of their own (PyTorch raises RuntimeError on a full disk), so the
    folders are looked at too.

    Args:
        error: what was raised.
        folders: the study folder, and others that are written to.
        token: of the study folder.
    """
    study = folders[0]
    if not sees(study, token):
        return gone(study)
    for folder in folders:
        if (number := _unwritable(folder)) is not None:
            return _fault(folder, number, study)
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in BROKEN:  # there is room again, since what was begun is removed
            named = Path(os.fsdecode(cause.filename)).parent if isinstance(cause.filename, (str, bytes)) else study
            return _fault(_of(named, folders), cause.errno, study)
    return None


def gone(study: Path) -> FaultError:
    """The fault of a study folder that is not there any more."""
    return FaultError(
        f"the study folder {study} is no longer there; nothing that was finished is lost: bring it back and go on "
        f"with `python -m search resume {study}`"
    )


@contextmanager
def watched(folders: Sequence[Path], token: str = "") -> Generator[None]:
    """Raises what breaks inside as the fault of a folder, if that is what it is.

    Raises:
        FaultError: a folder is full or gone.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if fault := fault_of(error, folders, token):
            raise fault from error
        raise


def _fault(folder: Path, number: int, study: Path) -> FaultError:
    return FaultError(
        f"{folder} {BROKEN.get(number, os.strerror(number))}; nothing that was finished is lost: mend it (where it is "
        f"full, make space) and go on with `python -m search resume {study}`"
    )


def _unwritable(folder: Path) -> int | None:
    """The number of the error with which ``folder`` refuses a small file; None if it takes it, or is not there."""
    if not folder.is_dir():
        return None
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno if error.errno in BROKEN else None
    return None


def _causes(error: BaseException) -> Generator[BaseException]:
    """The error, and those that it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _of(path: Path, folders: Sequence[Path]) -> Path:
    """The folder that ``path`` is in, or else itself."""
    return next((folder for folder in folders if path.is_relative_to(folder)), path)
