"""The door of the service, its settings and its reading of pictures, each alone."""

from __future__ import annotations

import asyncio
import json
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundles import picture
from tests.served import of_bundle

SETTINGS = {"BUNDLE_MEGABYTES": "0.001", "BUNDLE_ONGOING": "1", "BUNDLE_QUEUED": "1", "BUNDLE_BATCH": "1"}


class Echo:
    """An application that answers with what came, when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        await self.may.wait()
        headers = [(b"x-batch-size", b"3"), (b"x-wait-ms", b"7.5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": message["body"]})


class Client:
    """One request; ``read`` counts the bytes of its body that were taken."""

    def __init__(
        self, guard: Any, *chunks: bytes, path: str = "/predict", length: int | None = None, more: bool = False
    ) -> None:
        self.chunks, self.read, self.more = list(chunks), 0, more
        self.sent: list[Any] = []
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
        self.done = asyncio.ensure_future(guard(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        await asyncio.sleep(0)
        if not self.chunks:
            await asyncio.sleep(60)
        chunk = self.chunks.pop(0)
        self.read += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": self.more or bool(self.chunks)}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        await asyncio.wait_for(self.done, 10)
        start, *bodies = self.sent
        return start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in bodies)


def guarded(app: Any, stopping: Path | None = None, **changes: str) -> Any:
    settings = of_bundle("settings").Settings.read(SETTINGS | changes)
    return of_bundle("guard").Guard(app, settings, str(stopping) if stopping else None)


def test_a_body_is_handed_on_whole_and_counted() -> None:
    async def run() -> None:
        app = Echo()
        app.may.set()
        guard = guarded(app)
        client = Client(guard, b"ab", b"cd")
        assert (await client.answer())[::2] == (200, b"abcd") and app.bodies == [b"abcd"]
        status, _, text = await Client(guard, path="/metrics").answer()
        lines = text.decode().splitlines()
        assert status == 200
        assert 'yolo_requests_total{path="/predict",status="200"} 1.0' in lines
        assert (
            'yolo_batch_pictures_bucket{le="2.0"} 0.0' in lines and 'yolo_batch_pictures_bucket{le="4.0"} 1.0' in lines
        )
        assert 'yolo_wait_seconds_bucket{le="0.005"} 0.0' in lines and "yolo_wait_seconds_sum 0.0075" in lines
        assert 'yolo_request_seconds_count{path="/predict"} 1.0' in lines

    asyncio.run(run())


def test_what_is_too_large_is_refused_before_it_is_read_or_once_it_is_too_much() -> None:
    async def run() -> None:
        app = Echo()
        guard = guarded(app)
        announced = Client(guard, *[b"x" * 500] * 1000, length=500_000)
        while not announced.sent:
            await asyncio.sleep(0)
        assert announced.read == 0  # when it was refused
        status, headers, text = await announced.answer()
        assert (status, headers[b"connection"]) == (413, b"close") and "1,000 bytes" in json.loads(text)["detail"]
        assert announced.read <= 1500  # in order that the client may see the answer
        streamed = Client(guard, *[b"x" * 500] * 1000)
        assert (await streamed.answer())[0] == 413 and streamed.read <= 3000
        assert app.bodies == []

    asyncio.run(run())


def test_more_than_there_is_room_for_is_refused_at_once_and_health_is_not() -> None:
    async def run() -> None:
        app = Echo()
        guard = guarded(app)
        kept = [Client(guard, b"a"), Client(guard, b"b")]
        await asyncio.sleep(0.01)
        health = Client(guard, b"", path="/health")
        status, headers, _ = await Client(guard, b"c").answer()
        assert (status, headers[b"retry-after"]) == (503, b"1")
        slow = [Client(guard, b"e", more=True) for _ in range(3)]  # refused, and still sending
        await asyncio.sleep(0.01)
        app.may.set()
        assert [(await one.answer())[0] for one in (*kept, health)] == [200, 200, 200]
        assert (await Client(guard, b"d").answer())[0] == 200
        assert [(await one.answer())[0] for one in slow] == [503] * 3

    asyncio.run(run())


def test_a_stop_refuses_what_is_new_and_says_what_is_left(tmp_path: Path) -> None:
    async def run() -> None:
        app, stopping = Echo(), tmp_path / "stopping"
        guard = guarded(app, stopping)
        begun = Client(guard, b"a")
        await asyncio.sleep(0.01)
        stopping.touch()
        status, headers, _ = await Client(guard, path="/health").answer()
        assert (status, headers[b"x-requests-left"], headers[b"x-pictures-answered"]) == (503, b"1", b"0")
        app.may.set()
        assert (await begun.answer())[0] == 200
        _, headers, _ = await Client(guard, path="/health").answer()
        assert (headers[b"x-requests-left"], headers[b"x-pictures-answered"]) == (b"0", b"1")

    asyncio.run(run())


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def run() -> None:
        app = Echo()
        guard = guarded(app, BUNDLE_SECONDS="0.05")
        client = Client(guard, b"a", more=True)
        assert (await client.answer())[0] == 408 and app.bodies == []

    asyncio.run(run())


def test_settings_go_through_the_environment_and_what_makes_no_sense_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = of_bundle("settings")
    given = module.from_command_line(
        "text", {"BUNDLE_PORT": "81", "BUNDLE_BATCH": "2"}, ["--batch", "4", "--wait-ms", "1.5"]
    )
    assert (given.port, given.batch, given.wait_ms, given.host) == (81, 4, 1.5, "127.0.0.1")
    assert module.Settings.read(given.written()) == given
    for environment, arguments, words in (
        ({"BUNDLE_PORT": "0"}, [], "port of 0 makes no sense"),
        ({}, ["--batch", "20"], "a batch of 20 cannot be filled with 16"),
        ({"BUNDLE_PORT": "http"}, [], "'http'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            module.from_command_line("text", environment, arguments)
        assert stopped.value.code == 2 and words in capsys.readouterr().err


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as it is where there is no Ultralytics, which puts a function of its own in place of Pillow's."""
    from ultralytics.utils import patches

    monkeypatch.setattr(Image, "open", patches._image_open)
    return of_bundle("pictures")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says that it is so large, and has a hundred rows; its size is all that may be looked at."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + b"\x01\x00\x00\x00\x00"  # one bit a pixel
    rows = zlib.compress(bytes(1 + (width + 7) // 8) * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_pictures_are_read_as_they_are_looked_at(pictures: Any, kind: str) -> None:
    body = encoded(picture(1), kind)
    found = pictures.read_picture(body, 1)
    np.testing.assert_array_equal(found[..., ::-1], np.asarray(Image.open(BytesIO(body)).convert("RGB")))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "is empty"),
        (b"no picture", 400, "no picture"),
        (encoded(picture(1), "JPEG")[:700], 400, "broken"),
        (encoded(picture(1), "PNG")[:300], 400, "broken"),
        (encoded(picture(1), "GIF"), 400, "no picture"),  # Pillow reads it; each format is a way in
        (encoded(picture(1, 1010, 1000), "PNG"), 413, "1000 × 1010 pixels; 1 million"),
        (bomb(50_000, 50_000), 413, "50000 × 50000 pixels"),
    ],
)
def test_what_is_no_picture_is_refused(pictures: Any, body: bytes, status: int, words: str) -> None:
    with pytest.raises(pictures.BadPicture) as refused:
        pictures.read_picture(body, 1)
    assert refused.value.status == status and words in str(refused.value)


def test_pictures_with_wrong_bytes_anywhere_are_read_or_refused(pictures: Any) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "camera"
    whole = [
        *(encoded(picture(1), kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP")),
        encoded(picture(1).convert("P"), "PNG"),
        encoded(picture(1), "BMP"),
        encoded(picture(1).convert("CMYK"), "JPEG"),
    ]
    refused = 0
    for number in range(600):
        body = bytearray(whole[number % len(whole)])
        for place in rng.integers(0, min(len(body), 400 if number % 2 else len(body)), rng.integers(1, 9)):
            body[place] = rng.integers(256)
        try:
            assert pictures.read_picture(bytes(body), 1).shape[2] == 3
        except pictures.BadPicture:
            refused += 1
    assert 100 < refused < 600


@pytest.mark.parametrize(
    ("header", "well"),
    [
        ("image/png", True),
        ("Image/JPEG; q=1", True),
        ("text/plain", False),
        ("", False),
        ("multipart/form-data", False),
    ],
)
def test_only_pictures_are_taken_as_a_body(pictures: Any, header: str, well: bool) -> None:
    if well:
        pictures.check_type(header)
        return
    with pytest.raises(pictures.BadPicture, match="send the picture itself"):
        pictures.check_type(header)
