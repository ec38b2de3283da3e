"""A study folder in the hands of one process, in step with the URL and with Optuna's storage, if it has any."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from search.storage.filesystems import check_study_folder
from search.storage.working import url_of
from search.store import locked
from search.study import StudyConfig


@contextmanager
def held(folder: Path, config: StudyConfig | None = None) -> Generator[None]:
    """Holds the study folder for this process. If it is the working folder of a URL, that is held too.

    Args:
        folder: made if it is missing.
        config: the study, if it is searched: then Optuna's storage is kept in step with its records.

    Raises:
        UserError: another process is writing there, or a storage cannot be used.
    """
    check_study_folder(folder)
    with locked(folder), ExitStack() as stack:
        if url_of(folder) is not None:
            from search.storage.mirror import mirrored

            stack.enter_context(mirrored(folder))
        if config is not None:
            from search.storage.ledger import kept_ledger

            stack.enter_context(kept_ledger(config, folder))
        yield
