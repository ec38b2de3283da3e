"""The server of the live page: whom it answers, and with what."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest

from search.errors import UserError
from search.live.server import WatchServer
from search.store import Store, write_atomically
from spaces.recipe import Recipe
from tests.fakes import make_baseline
from tests.studies import RECORDS, study
from tests.watching import served

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Generator[WatchServer]:
    folder = tmp_path / "study"
    folder.mkdir()
    write_atomically(folder / "study.yaml", study().to_yaml())
    (tmp_path / "secret").write_text("secret")
    Store(folder).append([make_baseline(), RECORDS["good"]])
    with served(folder) as running:
        yield running


def ask(
    server: WatchServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, content, dict(answer.getheaders())


def test_it_listens_on_loopback_alone(server: WatchServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError):  # noqa: PT011 - refused or unreachable, as the machine has it
        socket.create_connection(("127.0.0.2", server.server_port), timeout=1)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil:PORT", ""]
)
def test_a_request_for_another_host_learns_nothing(server: WatchServer, host: str) -> None:
    for path in ("/", "/changes", "/report.html", "/recipe?id=x"):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            name = host.replace("PORT", str(server.server_port))
            connection.sendall(
                f"GET {path} HTTP/1.1\r\n{f'Host: {name}' if name else 'X: y'}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        assert answer.startswith("HTTP/1.1 403 ")
        assert "cats" not in answer


def test_its_own_names_are_answered(server: WatchServer) -> None:
    for name in ("127.0.0.1", "localhost"):
        status, content, headers = ask(server, "/", host=f"{name}:{server.server_port}")
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "{{" not in content
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
        assert len(re.findall(r"'sha256-[^']{44}'", policy)) == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_it_is_only_read(server: WatchServer, method: str) -> None:
    assert ask(server, "/changes", method)[0] == 405


@pytest.mark.parametrize(
    "path",
    ["/../secret", "/%2e%2e/secret", "//secret", "/study.yaml", "/records.jsonl", "/report.html/../study.yaml", "/x"],
)
def test_no_other_file_is_served(server: WatchServer, path: str) -> None:
    status, content, _ = ask(server, path)
    assert (status, content) == (404, "not here\n")


def test_changes_are_told_once(server: WatchServer) -> None:
    status, content, headers = ask(server, "/changes")
    found = json.loads(content)
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "application/json", "no-store")
    assert found["records"]["id"] == [RECORDS["good"].id]
    again = json.loads(ask(server, f"/changes?token={found['token']}&records=1&moments=0")[1])
    assert again["records"]["id"] == []
    for nonsense in ("records=-1", "records=1e9", "records=99999999999999999999", "records=%C2%B2", "token=%00"):
        assert json.loads(ask(server, f"/changes?{nonsense}")[1])["records"]["id"] == [RECORDS["good"].id]


def test_recipes_and_the_report_are_there_if_they_are(server: WatchServer) -> None:
    text = ask(server, f"/recipe?id={RECORDS['good'].id}")[1]
    assert Recipe.from_yaml(text) == RECORDS["good"].recipe
    assert ask(server, "/recipe?id=none")[0] == 404
    assert ask(server, "/report.html")[0] == 404
    (server.folder / "report.html").write_text("<p>it")
    assert ask(server, "/report.html")[:2] == (200, "<p>it")
    assert json.loads(ask(server, "/changes")[1])["report"]


def test_a_port_that_is_taken_is_refused_in_words(server: WatchServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--port {server.server_port}: .* leave it out"):
        WatchServer(tmp_path, server.server_port)


def test_the_command_says_where_the_page_is_and_ends_with_ctrl_c(server: WatchServer) -> None:
    command = [sys.executable, "-m", "search", "watch", str(server.folder), "--no-browser"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url, words = process.stdout.readline().split(maxsplit=1)
    assert words == f"shows {server.folder} until Ctrl-C\n"
    with urllib.request.urlopen(f"{url}changes", timeout=30) as answer:
        assert json.load(answer)["study"]["title"] == "cats"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
