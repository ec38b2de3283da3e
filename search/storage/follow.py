"""A thread that keeps something in step with a study folder, and a search that goes on when it cannot."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

LOOK = 0.5  # seconds between two looks at the folder
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds until it is tried again after a failure, and at most

log = logging.getLogger("search.storage")


class Follower(Protocol):
    """What is kept in step."""

    name: str  # what does not answer, for a warning
    where: str  # what has everything meanwhile

    @property
    def passing(self) -> tuple[type[Exception], ...]:
        """Failures that may pass."""
        ...

    def due(self) -> bool:
        """Whether there is something to do; cheap, since it is asked twice a second."""
        ...

    def work(self) -> None:
        """Does it. What it raises of ``passing`` is tried again; anything else ends the thread."""
        ...


class Following:
    """The thread of a follower. Failures that may pass are waited out, twice as long each time, with one warning."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follows {follower.name}", daemon=True)
        self.failure: Exception | None = None  # what ended it, or what it waits out now

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, patience: float) -> Exception | None:
        """Ends it, after what is left to do was done; returns why it could not be, after ``patience`` seconds."""
        self._end.set()
        self._thread.join()
        until = time.monotonic() + patience
        if self._lost():
            return self.failure
        wait = FIRST_WAIT
        try:
            while not self._try(self._follower.work) and time.monotonic() + wait < until:
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        except Exception as error:  # noqa: BLE001 - the caller says what it means
            return error
        return self.failure

    def _lost(self) -> bool:
        """Whether it ended by a failure that does not pass."""
        return self.failure is not None and not isinstance(self.failure, self._follower.passing)

    def _run(self) -> None:
        wait = LOOK
        while not self._end.wait(wait):
            was_well = self.failure is None
            try:
                well = self._try(self._step)
            except Exception as error:  # noqa: BLE001 - the search goes on; it is told at its end
                self.failure = error
                log.warning("%s: %s; the search goes on", self._follower.name, error)
                return
            if well:
                wait = LOOK
                if not was_well:
                    log.warning("%s answers again", self._follower.name)
            else:
                wait = FIRST_WAIT if was_well else min(2 * wait, LONGEST_WAIT)
                if was_well:
                    log.warning(
                        "%s does not answer (%s); the search goes on, and %s has everything",
                        self._follower.name,
                        " ".join(str(self.failure).split())[:200],
                        self._follower.where,
                    )

    def _step(self) -> None:
        if self.failure is not None or self._follower.due():
            self._follower.work()

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except self._follower.passing as error:
            self.failure = error
            return False
        self.failure = None
        return True
