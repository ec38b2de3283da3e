"""A study behind a URL while a driver works on it here: one writer, and what is finished is sent as it is finished."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from search.storage.follow import Following
from search.storage.lease import Lease, LeaseLostError, last_writer
from search.storage.location import Location, StorageError, meaning
from search.storage.pull import pull
from search.storage.push import Push
from search.storage.working import Working, read_working, working_folder
from search.store import InUseError, locked

PATIENCE = 120.0  # seconds, for a place that does not answer at the end of a search

log = logging.getLogger("search.storage")


def bring(url: str, *, whole: bool = True, work: Path | None = None) -> Path:
    """A folder with what is behind ``url``, to be read; if a driver works in it just now, it has the latest.

    Args:
        url: of a study.
        whole: the artifacts and the baseline too.
        work: the folder, one in the user's cache if not given.

    Raises:
        StorageError: the place does not answer, or refuses.
        UserError: the URL or the folder cannot be used.
    """
    location = Location(url)
    folder = working_folder(url, work)
    with suppress(InUseError), locked(folder):
        try:
            pull(read_working(folder), location, whole=whole, last_writer=last_writer(location))
        except OSError as error:
            raise StorageError(meaning(url, error)) from error
    return folder


@contextmanager
def mirrored(folder: Path) -> Generator[None]:
    """Holds the URL of a working folder for this process, and keeps it in step with the folder.

    Raises:
        StorageError: another driver works on it, or it does not answer: at first, or at the end, with what to do.
    """
    working = read_working(folder)
    location = Location(working.url)
    lease = Lease(location, working.writer)
    try:
        lease.acquire()
        parts = pull(working, location, whole=True, last_writer=lease.before)
    except OSError as error:
        raise StorageError(meaning(working.url, error)) from error
    following = Following(Mirror(working, lease, Push(working, location, parts)))
    following.start()
    try:
        yield
    except BaseException:
        if (failure := _end(following, working, lease, patience=0)) is not None:
            log.warning("%s", _not_sent(working, failure))
        raise
    if (failure := _end(following, working, lease, patience=PATIENCE)) is not None:
        raise StorageError(_not_sent(working, failure)) from failure


def _end(following: Following, working: Working, lease: Lease, *, patience: float) -> Exception | None:
    """Sends what is left, lets the next driver in, and returns why something could not be sent."""
    failure = following.stop(patience)
    working.save()
    if failure is None:
        with suppress(OSError):  # else it is taken over in a minute
            lease.release()
    return failure


class Mirror:
    """Sends what was finished, and renews the lease."""

    passing = (OSError,)

    def __init__(self, working: Working, lease: Lease, push: Push) -> None:
        self.name, self.where = working.url, str(working.folder)
        self._lease, self._push = lease, push
        self._sent: object = None

    def due(self) -> bool:
        """Whether something was finished; renews the lease too."""
        self._lease.renew()
        return self._push.signature() != self._sent

    def work(self) -> None:
        """Sends what was finished. Nothing is sent without the lease."""
        self._lease.renew()
        now = self._push.signature()
        self._push.send()
        self._sent = now


def _not_sent(working: Working, failure: Exception) -> str:
    if isinstance(failure, LeaseLostError):
        why = f"{failure}; what that driver does not have is kept in {working.folder}"
    else:
        why = f"{meaning(working.url, failure)}; it does not have all of the study, {working.folder} does"
    return f"{why}: `python -m search sync '{working.url}' --work {working.folder}` sends it"
