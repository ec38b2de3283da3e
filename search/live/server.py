"""The page of ``watch``: an HTTP server of this machine alone, that only ever answers GET.

It listens on 127.0.0.1, and answers no request whose Host is another: a page of somebody else whose name was turned
to this address (DNS rebinding) learns nothing.
"""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from search.errors import UserError
from search.live.follow import Follower, encoded
from search.live.page import POLICY_HEADER, watch_page

ADDRESS = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"


class WatchServer(ThreadingHTTPServer):
    """Serves the page of one study folder on loopback; ``serve_forever`` and ``shutdown`` as in the library.

    Args:
        folder: the study's; it need not be there yet.
        port: 0 takes a free one.

    Raises:
        UserError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        try:
            super().__init__((ADDRESS, port), Handler)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; leave it out to take a free one") from error
        self.folder, self.follower = folder, Follower(folder)
        self.follower.changes("", 0, 0)  # reads what is there before anybody waits for it

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> frozenset[str]:
        """What a request's Host may be."""
        return frozenset(f"{name}:{self.server_port}" for name in (ADDRESS, "localhost"))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: WatchServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a silent client is waited for
    server_version, sys_version = "yolo-front", ""

    def do_GET(self) -> None:
        """Answers with the page, the changes, a recipe or the report; with 404 to all else."""
        if self.headers.get("Host", "") not in self.server.hosts:
            self._send(HTTPStatus.FORBIDDEN, TEXT, b"this page is for this machine alone\n")
            return
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        match address.path:
            case "/":
                self._send(HTTPStatus.OK, HTML, watch_page().encode(), {"Content-Security-Policy": POLICY_HEADER})
            case "/changes":
                counts = [_count(query.get(name, "")) for name in ("records", "moments")]
                self._send(HTTPStatus.OK, JSON, encoded(self.server.follower.changes(query.get("token", ""), *counts)))
            case "/recipe":
                self._optional(TEXT, (self.server.follower.recipe(query.get("id", "")) or "").encode())
            case "/report.html":
                path = self.server.folder / "report.html"
                self._optional(HTML, path.read_bytes() if path.is_file() else b"")
            case _:
                self._optional(TEXT, b"")

    def refuse(self) -> None:
        """Answers every other method."""
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"GET only\n", {"Allow": "GET", "Connection": "close"})

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = refuse  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of requests."""

    def _optional(self, kind: str, content: bytes) -> None:
        if content:
            self._send(HTTPStatus.OK, kind, content)
        else:
            self._send(HTTPStatus.NOT_FOUND, TEXT, b"not here\n")

    def _send(self, status: HTTPStatus, kind: str, content: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            **HEADERS,
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **(more or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
