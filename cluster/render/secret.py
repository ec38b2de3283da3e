"""Secrets are named, never written: what looks like one is refused, and the refusal does not repeat it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import cast

# Shapes that providers publish for their own credentials, private keys and passwords inside URLs.
_KNOWN = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bgh[oprsu]_[0-9A-Za-z]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"  # GitHub, GitLab
    r"|\bhf_[0-9A-Za-z]{20,}|\bsk-[\w-]{16,}|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{30,}"  # Hugging Face, …, Google
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}"  # a JSON web token
    r"|-----BEGIN|://[^/\s:@]*:[^/\s@]+@"
)
_RUN = re.compile(r"(?<!sha256:)\b[0-9A-Za-z_=+]{32,}")  # a digest of an image is no secret
_AWS_SECRET = re.compile(r"(?<![0-9A-Za-z/+])[0-9A-Za-z/+]{40}(?![0-9A-Za-z/+])")
_SECRET_NAME = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|(?:API|ACCESS|PRIVATE|AUTH)_?KEY", re.IGNORECASE)


def looks_like_secret(text: str) -> bool:
    """Whether ``text`` holds a credential of a known shape, or 32 characters or more that look random."""
    if _KNOWN.search(text):
        return True
    if any(_random(run) for run in _RUN.findall(text)):
        return True
    return any(_mixed(run) and _random(run) for run in _AWS_SECRET.findall(text))


def names_a_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a secret, and not the path of one."""
    return bool(_SECRET_NAME.search(name)) and not name.endswith(("_PATH", "_FILE"))


def find_secret(content: object) -> str | None:
    """The key, such as ``workers.0.name``, of the first text in ``content`` that looks like a secret."""
    for key, text in _texts(content, ()):
        if looks_like_secret(text):
            return ".".join(key)
    return None


def _texts(content: object, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, dict):
        for number, (name, value) in enumerate(cast("dict[object, object]", content).items()):
            # A key that is a secret itself is named by its place.
            shown = f"key {number + 1}" if looks_like_secret(str(name)) else str(name)
            yield (*key, shown), str(name)
            yield from _texts(value, (*key, shown))
    elif isinstance(content, (list, tuple)):
        for number, value in enumerate(cast("list[object]", content)):
            yield from _texts(value, (*key, str(number)))


def _mixed(run: str) -> bool:
    return all(re.search(kind, run) for kind in ("[0-9]", "[A-Z]", "[a-z]"))


def _random(run: str) -> bool:
    """Letters and digits with 3 bits of entropy a character: 32 random hexadecimal digits have 3.0 to 4.0."""
    counts = Counter(run)
    entropy = -sum(n / len(run) * math.log2(n / len(run)) for n in counts.values())
    return bool(re.search("[0-9]", run) and re.search("[A-Za-z]", run)) and entropy >= 3.0
