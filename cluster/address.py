"""Which cluster is meant, how to prove who we are to it, and whether it can be talked to at all.

One request to ``/api/version`` tells an unreachable, an unauthorised and a wrong-version cluster apart before Ray is
imported or anything is packed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.errors import UserError

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # in the order of Ray's own command line
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TIMEOUT = (10, 60)  # seconds to connect, and to wait for the answer
GIVE_A_TOKEN = "name a file that holds it with --token-file, or set RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The dashboard of a Ray cluster. ``token_from`` says where the token came from; the token is never shown."""

    address: str
    token: str | None = field(default=None, repr=False)
    token_from: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}


def find_cluster(
    address: str | None, token_file: Path | None, environment: Mapping[str, str] = os.environ
) -> Cluster:  # fmt: skip
    """The cluster that the command line or else the environment names, with its token.

    Raises:
        UserError: the address is no ``http(s)://HOST:PORT``, or a token file cannot be read.
    """
    named = address or next((environment[name] for name in ADDRESS_VARIABLES if environment.get(name)), DEFAULT_ADDRESS)
    parts = urlsplit(named)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(f"--address {named}: expected the dashboard's address, such as http://HOST:8265")
    if parts.username is not None or parts.password is not None:
        raise UserError(f"--address: no name and password in it, please; {GIVE_A_TOKEN}")
    token, source = _token(token_file, environment)
    return Cluster(address=named.rstrip("/"), token=token, token_from=source)


def _token(token_file: Path | None, environment: Mapping[str, str]) -> tuple[str | None, str]:
    """The token and where it came from, in Ray's order. The one in the home folder is sent in Ray's token mode only."""
    if token_file is not None:
        return _read(token_file, "--token-file"), f"--token-file {token_file}"
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None, ""
    if environment.get("RAY_AUTH_TOKEN"):
        return environment["RAY_AUTH_TOKEN"].strip(), "RAY_AUTH_TOKEN"
    if environment.get("RAY_AUTH_TOKEN_PATH"):
        path = Path(environment["RAY_AUTH_TOKEN_PATH"]).expanduser()
        return _read(path, "RAY_AUTH_TOKEN_PATH"), f"RAY_AUTH_TOKEN_PATH ({path})"
    home = Path("~/.ray/auth_token").expanduser()
    if environment.get("RAY_AUTH_MODE", "").lower() == "token" and home.is_file():
        return _read(home, "RAY_AUTH_MODE"), str(home)
    return None, ""


def _read(path: Path, who: str) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{who}: cannot read the token in {path}: {reason}") from error
    if not token or any(character.isspace() for character in token):
        raise UserError(f"{who}: {path} holds no token: expected one word")
    return token


def check(cluster: Cluster) -> None:
    """Asks the cluster for its version.

    Raises:
        UserError: it does not answer, wants another token, is no Ray dashboard, or runs a Ray of another minor version
            than the one that is installed here.
    """
    import requests

    address = cluster.address
    try:
        response = requests.get(f"{address}/api/version", headers=cluster.headers, timeout=TIMEOUT)
    except requests.exceptions.SSLError as error:
        raise UserError(
            f"the certificate of {address} is not trusted; set REQUESTS_CA_BUNDLE to its authority's"
        ) from error
    except requests.exceptions.RequestException as error:
        reason = "no answer in time" if isinstance(error, requests.exceptions.Timeout) else "cannot connect"
        raise UserError(
            f"no Ray cluster answers at {address} ({reason}); is it running, with its dashboard, and the port open?"
        ) from error
    if response.status_code in {401, 403}:
        raise unauthorised(cluster)
    theirs = _ray_version(response)
    if theirs is None:
        raise UserError(
            f"what answers at {address} is no Ray dashboard (/api/version: HTTP {response.status_code}); "
            "correct the address"
        )
    ours = version("ray")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise UserError(
            f"the cluster at {address} runs Ray {theirs}, here is Ray {ours}; both must have the same first two "
            "numbers: use an image of the cluster with this version, or install the cluster's here"
        )


def unauthorised(cluster: Cluster) -> UserError:
    """What to say when the cluster answers 401 or 403."""
    if cluster.token is None:
        return UserError(f"the cluster at {cluster.address} asks for a token; {GIVE_A_TOKEN}")
    return UserError(f"the cluster at {cluster.address} refuses the token from {cluster.token_from}; correct it")


def _ray_version(response: Any) -> str | None:
    try:
        found = response.json()["ray_version"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if response.status_code == 200 and isinstance(found, str) else None
