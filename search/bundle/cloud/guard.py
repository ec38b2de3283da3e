"""The door of the service: what comes before Ray Serve's HTTP proxy, in its process.

It refuses what is too large before it is read, what is too much before it waits, and everything once the service
stops; it reads a body to its end before a copy of the model is kept busy with it; and it counts, for ``/metrics``.
Ray Serve takes it by ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=guard:middlewares``.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from settings import Settings
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STOPPING = "BUNDLE_STOPPING"  # a file that is there once the service stops
PATHS = frozenset({"/", "/predict", "/health", "/metrics", "/openapi.json"})  # others are counted as one
LINGER = 1.0  # seconds in which a body that was refused is read on
AGAIN = (b"retry-after", b"1")
CLOSE = (b"connection", b"close")


def middlewares() -> list[Middleware]:
    """What Ray Serve puts in front of its proxy."""
    return [Middleware(Guard, Settings.read(os.environ), os.environ.get(STOPPING))]


class Refusal(Exception):  # noqa: N818 - the client's, not ours
    """A status, a sentence and further headers."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers


class Counts:
    """What ``/metrics`` tells."""

    def __init__(self) -> None:
        """All are 0."""
        self.pictures = 0  # that were answered
        self.registry = CollectorRegistry()
        self.requests = Counter("yolo_requests", "Requests.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram("yolo_request_seconds", "From request to answer.", ["path"], registry=self.registry)
        self.batches = Histogram(
            "yolo_batch_pictures",
            "Of each answer, how many pictures were run at once with its own.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.waits = Histogram(
            "yolo_wait_seconds",
            "Of each answer, how long its picture waited for the model.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        text = "Requests that are being read, wait or are being answered."
        self.in_flight = Gauge("yolo_in_flight_requests", text, registry=self.registry)

    def add(self, path: str, status: int, seconds: float, headers: dict[bytes, bytes]) -> None:
        """Counts a request that was answered."""
        known = path if path in PATHS else "other"
        self.requests.labels(known, str(status)).inc()
        self.seconds.labels(known).observe(seconds)
        if b"x-batch-size" in headers:
            self.pictures += 1
            self.batches.observe(int(headers[b"x-batch-size"]))
            self.waits.observe(float(headers[b"x-wait-ms"]) / 1000)


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, settings: Settings, stopping: str | None) -> None:
        """Guards ``app``; ``stopping`` is the file that says that the service stops."""
        self._app = app
        self._most = int(settings.megabytes * 1e6)
        self._seconds = settings.seconds
        self._room = settings.replicas * settings.ongoing + settings.queued
        self._stopping = Path(stopping) if stopping else None
        self._begun: set[object] = set()  # requests that are not answered yet
        self.counts = Counts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, headers, counted = time.perf_counter(), 499, {}, False  # 499: the client went away, as in nginx

        def count() -> None:
            nonlocal counted
            if not counted:
                self.counts.add(scope["path"], status, time.perf_counter() - start, headers)
            counted = True

        async def noting(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], dict(message.get("headers", ()))
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last:
                count()  # before the client knows that it has its answer
            await send(message)
            if last:
                self._begun.discard(receive)  # Ray Serve takes a few milliseconds more to be done with it

        self._begun.add(receive)
        try:
            await self._answer(scope, receive, noting)
        finally:
            self._begun.discard(receive)
            count()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/metrics":
            self.counts.in_flight.set(len(self._begun) - 1)
            await _send(send, 200, generate_latest(self.counts.registry), CONTENT_TYPE_LATEST)
            return
        try:
            self._check_open(scope)
            body = await self._read(scope, receive)
        except Refusal as refusal:
            text = json.dumps({"detail": str(refusal)}).encode()
            await _send(send, refusal.status, text, "application/json", refusal.headers, last=False)
            self._begun.discard(receive)  # who still sends takes no room from others
            if refusal.status != 408:
                await _read_on(receive, self._most)
            await send({"type": "http.response.body"})
        else:
            if body is not None:
                await self._app(scope, _replayed(body, receive), send)

    def _check_open(self, scope: Scope) -> None:
        """Raises Refusal if there is no room, or no more time."""
        if self._stopping and self._stopping.exists():
            left = len(self._begun) - 1  # this one is not
            told = (b"x-requests-left", b"%d" % left), (b"x-pictures-answered", b"%d" % self.counts.pictures)
            raise Refusal(503, f"stopping; {left} requests are left", AGAIN, CLOSE, *told)
        if scope["path"] != "/health" and len(self._begun) > self._room:
            raise Refusal(503, f"busy with {self._room} requests; come again later", AGAIN)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, or None if the client went away. Raises Refusal if there is too much of it."""
        too_large = Refusal(413, f"the body is too large; {self._most:,} bytes are the most", CLOSE)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if int(length) > self._most:
            raise too_large  # before the client is told to go on (100-continue)
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                while (message := await receive())["type"] == "http.request":
                    body += message.get("body", b"")
                    if len(body) > self._most:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self._seconds:g} s", CLOSE) from None
        return None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives ``body``, and then whatever comes after it: that the client goes away."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _read_on(receive: Receive, most: int) -> None:
    """Reads and forgets so many bytes: a client whose connection is closed while it sends may not see the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while most > 0 and (message := await receive())["type"] == "http.request" and message.get("more_body"):
                most -= len(message.get("body", b""))


async def _send(
    send: Send, status: int, body: bytes, kind: str, headers: tuple[tuple[bytes, bytes], ...] = (), *, last: bool = True
) -> None:
    own = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": not last})
