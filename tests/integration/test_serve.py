"""Bundles served by Ray Serve, over real HTTP: the answers, what is refused, and that a stop loses nothing."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.measure.end_to_end import Chain, open_chain
from search.runtimes.session import Runtime
from tests.bundles import bundle_of, picture
from tests.lively import lively_model
from tests.served import Service, of_bundle, search_serve, serving
from tests.tiny import SIZE
from tests.tiny_classifier import SIDE, tiny_classifier
from tests.unit.test_serve_guard import bomb

PIXELS, SCORE = 0.05, 1e-3  # as far as the boxes of the study's own file may be off; JSON has .01 and 1e-5
MEGABYTES = 1


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(lively_model(), tmp_path_factory.mktemp("detector"), size=SIZE, place="cloud")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the edge."""
    return bundle_of(tiny_classifier(), tmp_path_factory.mktemp("classifier"), size=SIDE, task="classify")


@pytest.fixture(scope="module")
def service(detector: Path) -> Iterator[Service]:
    with serving(search_serve(detector), megabytes=MEGABYTES, replicas=2) as found:
        yield found
        found.process.send_signal(signal.SIGINT)
        assert found.stopped()[0] == 0


@pytest.fixture(scope="module")
def chain(detector: Path) -> Chain:
    """The study's own, around the file that it measured."""
    return open_chain(detector / "model.onnx", Runtime())


def png(image: Image.Image) -> bytes:
    target = BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def expected(chain: Chain, image: Image.Image) -> np.ndarray:
    return chain.answer(np.ascontiguousarray(np.asarray(image)[..., ::-1]))


def assert_same(told: dict[str, Any], rows: np.ndarray) -> None:
    found = np.array([[*box["box"], box["score"], box["class"]] for box in told["boxes"]]).reshape(-1, 6)
    assert found.shape == rows.shape and len(rows) > 0
    np.testing.assert_array_equal(found[:, 5], rows[:, 5])
    np.testing.assert_allclose(found[:, :4], rows[:, :4], atol=PIXELS)
    np.testing.assert_allclose(found[:, 4], rows[:, 4], atol=SCORE)


def test_boxes_are_those_of_the_studys_file_with_the_keys_of_the_edge(service: Service, chain: Chain) -> None:
    image = picture(1)
    answer = service.predict(png(image))
    assert answer.status == 200
    assert list(answer.told) == ["width", "height", "ms", "boxes"]
    assert (answer.told["width"], answer.told["height"]) == (200, 150)
    assert set(answer.told["boxes"][0]) == {"label", "class", "score", "box"}
    assert_same(answer.told, expected(chain, image))


def test_pictures_that_come_at_once_are_run_at_once_and_each_gets_its_own_answer(
    service: Service, chain: Chain
) -> None:
    images = [picture(seed, 150 + seed, 200) for seed in range(48)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda image: service.predict(png(image)), images))
    assert {answer.status for answer in answers} == {200}
    for image, answer in zip(images, answers, strict=True):
        assert_same(answer.told, expected(chain, image))
    assert max(int(answer.headers["x-batch-size"]) for answer in answers) > 1


def test_it_is_described_and_shown_without_anything_from_elsewhere(service: Service) -> None:
    described = service.ask("GET", "/openapi.json").told
    predict = described["paths"]["/predict"]["post"]
    assert {"200", "400", "413", "415", "503"} <= set(predict["responses"])
    assert "image/jpeg" in predict["requestBody"]["content"]
    boxes = described["components"]["schemas"]["Boxes"]["properties"]
    assert set(boxes) == set(service.predict(png(picture(1))).told)
    page = service.ask("GET", "/").body.decode()
    assert "/predict" in page and not re.search(r"(src|href)=[\"'](?!/openapi)", page)
    health = service.ask("GET", "/health")
    assert (health.status, health.told["status"]) == (200, "ready")


def test_what_was_asked_is_counted(service: Service) -> None:
    def count(name: str) -> float:
        lines = service.ask("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    names = [
        'yolo_requests_total{path="/predict",status="200"}',
        'yolo_requests_total{path="/predict",status="415"}',
        "yolo_batch_pictures_count",
        "yolo_wait_seconds_count",
    ]
    before = [count(name) for name in names]
    service.predict(png(picture(1)))
    service.predict(b"text", "text/plain")
    assert [count(name) - start for name, start in zip(names, before, strict=True)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "image/png", 400),
        (b"some text", "image/png", 400),
        (b"some text", "text/plain", 415),
        (png(picture(1)), "application/x-www-form-urlencoded", 415),
        (png(picture(1))[:200], "image/png", 400),
        (bomb(50_000, 50_000), "image/png", 413),
        (b"x" * (MEGABYTES * 1_000_000 + 1), "image/png", 413),
    ],
    ids=["empty", "text", "wrong type", "form", "truncated", "bomb", "a byte too many"],
)
def test_what_is_no_picture_is_the_clients_fault(service: Service, body: bytes, kind: str, status: int) -> None:
    answer = service.predict(body, kind)
    assert answer.status == status and answer.told["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("PUT", "/predict", 405),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("POST", "/predict/../../model.onnx", 404),
        ("GET", "/model.onnx", 404),
        ("GET", "/" + "a" * 5000, 404),
    ],
)
def test_other_methods_and_paths_are_not_there(service: Service, method: str, path: str, status: int) -> None:
    assert service.ask(method, path, b"").status == status


def raw(service: Service, *chunks: bytes, seconds: float = 20) -> tuple[bytes, int]:
    """The first line of the answer to what is sent, piece by piece until there is one, and how many bytes were sent."""
    sent = 0
    with socket.create_connection(("127.0.0.1", service.port), timeout=seconds) as connection:
        for chunk in chunks:
            connection.settimeout(0.001)
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                pass
            connection.settimeout(seconds)
            connection.sendall(chunk)
            sent += len(chunk)
        return connection.recv(65536).split(b"\r\n")[0], sent


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_a_hundred_megabytes_are_refused_before_they_are_sent(service: Service) -> None:
    size = 100_000_000
    head = HEAD + b"Content-Length: %d\r\n\r\n" % size
    line, sent = raw(service, head)
    assert (line.split()[1], sent) == (b"413", len(head))
    line, sent = raw(service, HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size)
    assert line.split()[1] == b"413"  # and not 100


def test_a_body_of_unknown_length_is_refused_once_it_is_too_long(service: Service) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    line, sent = raw(service, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 1500)
    assert line.split()[1] == b"413"
    assert sent < 20_000_000


@pytest.mark.parametrize(
    "request_",
    [
        b"no http at all\r\n\r\n",
        HEAD + b"Content-Length: many\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["no http", "length in words", "negative length", "broken chunk"],
)
def test_broken_http_is_refused_and_the_service_goes_on(service: Service, request_: bytes) -> None:
    line, _ = raw(service, request_)
    assert line == b"" or line.split()[1][:1] == b"4"
    assert service.ask("GET", "/health").status == 200


def test_too_much_at_once_is_refused_and_a_stop_loses_no_request(classifier: Path) -> None:
    """A classifier for the edge, of which one request at a time is taken and two wait."""
    chain, image = open_chain(classifier / "model.onnx", Runtime()), picture(3)
    with serving(search_serve(classifier), ongoing=1, queued=2, batch=1) as service:
        told = service.predict(png(image)).told["classes"]
        rows = expected(chain, image)
        assert [row["class"] for row in told] == rows[:, 0].astype(int).tolist()
        np.testing.assert_allclose([row["score"] for row in told], rows[:, 1], atol=SCORE)
        refused_at_once(service)
        load, end = of_bundle("load"), threading.Event()
        with ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(load.client, service.url, png(image), "image/png", end) for _ in range(6)]
            time.sleep(2)
            service.process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            end.set()  # each client waits for its last answer
            code, last = service.stopped()
        statuses = sum((one.result().statuses for one in clients), Counter[str]())
    assert set(statuses) <= {"200", "503"}  # nothing was reset, none hung
    assert code == 0 and statuses["200"] > 10
    assert last == f"stopped: {statuses['200'] + 1} pictures answered, 0 requests left"


def refused_at_once(service: Service) -> None:
    """While three requests are still being sent, a fourth is told to come again."""
    kept = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(3)]
    body = png(picture(4))
    try:
        for connection in kept:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:100])
        wait_for(service, 3)
        start = time.perf_counter()
        answer = service.predict(body)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1") and time.perf_counter() - start < 5
        assert service.ask("GET", "/health").status == 200
    finally:
        for connection in kept:
            connection.close()
    wait_for(service, 0)  # who goes away takes no room


def wait_for(service: Service, requests: int) -> None:
    """Until the service says that it has so many requests, beside this one."""
    for _ in range(100):
        if f"yolo_in_flight_requests {requests}.0" in service.ask("GET", "/metrics").body.decode().splitlines():
            return
        time.sleep(0.1)
    raise AssertionError(f"there are never {requests} requests")
