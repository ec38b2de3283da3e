"""A real headless Chromium for tests, that notes what a page says on its console and what it asks of a network."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOW = "no Chromium here: `apt-get install chromium`, or name one in the environment variable CHROMIUM"


class Opened:
    """A page that was opened, with its errors and requests so far."""

    def __init__(self, page: Any) -> None:
        self.page, self.errors, self.requests = page, list[str](), list[str]()
        page.on("console", lambda said: self.errors.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        network = page.context.new_cdp_session(page)
        network.on("Network.requestWillBeSent", lambda event: self._note(event["request"]["url"]))
        network.on("Network.webSocketCreated", lambda event: self._note(event["url"]))
        network.send("Network.enable")

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.requests.append(url)

    def go(self, place: Path | str) -> Any:
        """Opens a file or an address and waits until its script is through and a frame was drawn."""
        self.page.goto(place if isinstance(place, str) else place.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page


def chromium() -> str:
    """The browser's path; skips the test where there is none."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip(HOW)
    return found


def until(page: Any, expression: str, seconds: float = 15.0) -> None:
    """Waits until the expression is true. Playwright's own way evaluates in the page, which its policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not true: {expression}"
        time.sleep(0.02)


@contextmanager
def browser() -> Generator[Any]:
    """A browser that is closed afterwards."""
    path = chromium()
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    with playwright.sync_playwright() as started:
        sandbox = os.geteuid() != 0  # Chromium refuses its sandbox to root, as in containers
        running = started.chromium.launch(executable_path=path, chromium_sandbox=sandbox)
        yield running
        running.close()
