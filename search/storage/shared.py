"""Results of stages behind a URL, for all machines of a study: a help, which is done without when it is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from search.storage.location import Location, meaning

PAUSE = 60.0  # seconds until a place that did not answer is asked again

log = logging.getLogger("search.storage")


class SharedResults:
    """Files behind ``url`` whose names say what they hold, so that the same name is the same content.

    While the place does not answer, nothing is found and nothing is sent; a result is then made again, or is on this
    machine alone.
    """

    def __init__(self, url: str) -> None:
        self._location = Location(url)
        self._ask_again = 0.0

    def fetch(self, name: str, path: Path) -> bool:
        """Puts the result called ``name`` at ``path``; False if there is none."""
        return self._answers() and self._try(lambda: self._location.download(name, path))

    def has(self, name: str) -> bool:
        """Whether there is a result called ``name``."""
        return self._answers() and self._try(lambda: name in self._location)

    def send(self, path: Path, name: str) -> None:
        """Puts the file ``path`` there as ``name``."""
        if self._answers():
            self._try(lambda: self._location.upload(path, name) is None)

    def drop(self, name: str) -> None:
        """Removes the result called ``name``, if it is there."""
        if self._answers():
            self._try(lambda: self._location.delete(name) is None)

    def _answers(self) -> bool:
        return time.monotonic() >= self._ask_again

    def _try(self, ask: Callable[[], bool]) -> bool:
        try:
            return ask()
        except OSError as error:
            self._ask_again = time.monotonic() + PAUSE
            log.warning("the stage cache is not used for a while: %s", meaning(self._location.url, error))
            return False
