"""``python -m search watch``: serves the live page until it is interrupted."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from pathlib import Path

from search.live.server import WatchServer


def watch(folder: Path, *, port: int = 0, browser: bool = True, on_ready: Callable[[str], None]) -> None:
    """Serves the page of ``folder`` until Ctrl-C, and opens a browser on it.

    Args:
        folder: of the study; it may be made later.
        port: 0 takes a free one.
        browser: whether a browser is opened.
        on_ready: called with the address once the page can be asked for.

    Raises:
        UserError: the port is taken.
    """
    with WatchServer(folder, port) as server:
        on_ready(server.url)
        if browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
