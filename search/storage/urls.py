"""URLs of places and of databases as text: what is one, what is below it, and that it holds no secret."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_SECRETS = frozenset({"access_key", "secret_key", "session_token", "account_key", "sas_token", "password", "token"})


def is_url(text: object) -> bool:
    """Whether ``text`` is a URL, not a path."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def below(url: str, *names: str) -> str:
    """The URL of what is called ``names`` below ``url``; the query stays at the end."""
    place, question, query = url.partition("?")
    return "/".join([place.rstrip("/"), *names]) + question + query


def last_name(url: str) -> str:
    """The last part of the path of ``url``."""
    return url.partition("?")[0].rstrip("/").rpartition("/")[2]


def secret_in(url: str) -> str | None:
    """What in ``url`` is a secret, in words that do not repeat it; None if nothing is."""
    parts = urlsplit(url)
    if parts.password:
        return "a password"
    return next((name for name, _ in parse_qsl(parts.query) if name.lower() in _SECRETS), None)
