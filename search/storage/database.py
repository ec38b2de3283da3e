"""Which Optuna storage a study has: a journal file in its folder, or the database that a URL names.

The URL comes from the environment, where it may hold a password, or from the study file, where it must not.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from search.errors import UserError
from search.storage.filesystems import check_sqlite

VARIABLE = "OPTUNA_STORAGE"
JOURNAL = "optuna.log"  # in the study folder
DRIVER = "postgresql+psycopg"
PLAIN = ("postgres", "postgresql")  # schemes that leave the driver open
PATIENCE = 10  # seconds, for a connection


def database_url(given: str | None) -> Any | None:
    """The URL of the database that Optuna's storage is in, as SQLAlchemy has it; None for the journal file.

    Args:
        given: of the study file; the environment's wins.

    Raises:
        UserError: it cannot be read, its driver is missing, or it is SQLite on a shared file system. The message does
            not repeat the URL.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    text = os.environ.get(VARIABLE) or given
    if not text:
        return None
    where = VARIABLE if os.environ.get(VARIABLE) else "optuna_storage"
    try:
        url = make_url(text)
        if url.drivername in PLAIN:
            url = url.set(drivername=DRIVER)
        if url.drivername == DRIVER and find_spec("psycopg") is None:
            raise UserError(f"{where}: PostgreSQL needs psycopg: pip install 'psycopg[binary]'")
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(
            f"{where} is no URL of a database that SQLAlchemy knows; give one such as postgresql://user@host/optuna"
        ) from error
    except ImportError as error:
        raise UserError(f"{where}: the driver of this database is missing: {error}") from error
    if url.get_backend_name() == "sqlite" and url.database:
        check_sqlite(Path(url.database))
    return url


def open_storage(url: Any | None, folder: Path) -> Any:
    """Optuna's storage in the database ``url``, or in the journal of a study folder.

    Raises what SQLAlchemy raises if the database does not answer.
    """
    if url is None:
        return _open_journal(folder / JOURNAL)
    from optuna.storages import RDBStorage

    engine: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername == DRIVER:
        engine["connect_args"] = {"connect_timeout": PATIENCE}
    return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=engine)


def shown(url: Any | None, folder: Path) -> str:
    """What a storage is called in messages: without its password."""
    return str(folder / JOURNAL) if url is None else url.render_as_string(hide_password=True)


def _open_journal(path: Path) -> Any:
    """The journal; a torn last line, from a kill in the middle of a write, is cut off, as Optuna could not read on."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    if path.is_file():
        lock = JournalFileSymlinkLock(str(path))
        lock.acquire()
        try:
            with path.open("r+b") as file:
                content = file.read()
                file.truncate(content.rfind(b"\n") + 1)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(path)))
