"""One clear line for a cluster that does not answer, wants a token, is none, or has another version: over real HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from cluster import address
from cluster.address import Cluster, check, find_cluster
from cluster.errors import UserError
from tests.dashboard import Dashboard, dashboard


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Dashboard]:
    with dashboard(tmp_path) as server:
        yield server


def refusal(cluster: Cluster) -> str:
    with pytest.raises(UserError) as caught:
        check(cluster)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_cluster_of_the_same_version_is_taken(head: Dashboard) -> None:
    major, minor, *_ = version("ray").split(".")
    for ray_version in (version("ray"), f"{major}.{minor}.99"):
        head.body = json.dumps({"ray_version": ray_version})
        check(Cluster(address=head.address))


@pytest.mark.parametrize("theirs", ["1.13.0", "2.9.3", "3.0.0.dev0", "2.6"])
def test_another_version_is_named(head: Dashboard, theirs: str) -> None:
    head.body = json.dumps({"ray_version": theirs})
    text = refusal(Cluster(address=head.address))
    assert text.startswith(f"the cluster at {head.address} runs Ray {theirs}, here is Ray {version('ray')};")


def test_a_token_that_is_missing_or_wrong_is_told_apart_and_never_shown(head: Dashboard, tmp_path: Path) -> None:
    head.token = "right"
    (tmp_path / "wrong").write_text("sesame\n")
    asked = refusal(find_cluster(head.address, None, {}))
    assert asked.startswith(f"the cluster at {head.address} asks for a token; name a file")
    cluster = find_cluster(head.address, tmp_path / "wrong", {})
    refused = refusal(cluster)
    assert refused == f"the cluster at {head.address} refuses the token from --token-file {tmp_path}/wrong; correct it"
    assert "sesame" not in repr(cluster)
    check(find_cluster(head.address, None, {"RAY_AUTH_TOKEN": "right"}))


@pytest.mark.parametrize(
    ("status", "body"), [(404, "nothing here"), (200, "<html>a router</html>"), (200, "[]"), (502, "bad gateway")]
)
def test_what_is_no_dashboard_is_said(head: Dashboard, status: int, body: str) -> None:
    head.status, head.body = status, body
    assert f"is no Ray dashboard (/api/version: HTTP {status})" in refusal(Cluster(address=head.address))


def test_nobody_there() -> None:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        text = refusal(Cluster(address=f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert "no Ray cluster answers at" in text and "(cannot connect)" in text


def test_somebody_who_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        text = refusal(Cluster(address=f"http://127.0.0.1:{mute.getsockname()[1]}"))
    assert "(no answer in time)" in text


def test_the_command_line_wins_over_the_environment() -> None:
    environment = {"RAY_API_SERVER_ADDRESS": "http://api:1", "RAY_ADDRESS": "http://ray:2"}
    assert find_cluster("http://mine:3/", None, environment).address == "http://mine:3"
    assert find_cluster(None, None, environment).address == "http://api:1"
    assert find_cluster(None, None, {"RAY_ADDRESS": "https://ray:2"}).address == "https://ray:2"
    assert find_cluster(None, None, {}).address == "http://127.0.0.1:8265"


@pytest.mark.parametrize("named", ["10.0.0.1:6379", "ray://head:10001", "auto", "http://"])
def test_other_kinds_of_addresses_are_refused(named: str) -> None:
    with pytest.raises(UserError, match="expected the dashboard's address, such as http://HOST:8265"):
        find_cluster(named, None, {})


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(UserError) as caught:
        find_cluster("http://me:sesame@head:8265", None, {})
    assert "sesame" not in str(caught.value)


def test_the_token_is_looked_for_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    (tmp_path / "path").write_text("path\n")
    (tmp_path / "file").write_text("file\n")
    path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "path")}

    def token(environment: dict[str, str], file: Path | None = None) -> str | None:
        return find_cluster("http://head", file, environment).token

    assert token({**path, "RAY_AUTH_TOKEN": "word"}, tmp_path / "file") == "file"
    assert token({**path, "RAY_AUTH_TOKEN": "word"}) == "word"
    assert token(path) == "path"
    assert token({"RAY_AUTH_MODE": "token"}) == "home"
    assert token({}) is None  # the one at home is not given to just any address
    assert token({**path, "RAY_AUTH_MODE": "disabled"}) is None


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), ("", "holds no token"), ("a b", "one word")])
def test_a_token_file_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(UserError, match=message):
        find_cluster("http://head", tmp_path / "token", {})
