"""Where a study is on the cluster: a folder of the head, or a URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from cluster.errors import UserError


def is_url(value: str) -> bool:
    """Whether ``value`` is a URL, such as of a bucket, and no path."""
    return "://" in value


def folder_of(name: str, root: str) -> str:
    """The folder of a study on the head, whose home folder may stand for ``~`` in ``root``, or its URL.

    Raises:
        UserError: ``root`` is a URL with a password, which anybody who sees the cluster would see.
    """
    if not is_url(root):
        return f"{root.rstrip('/')}/studies/{name}"
    if urlsplit(root).password:
        raise UserError("--root: leave the password out; the nodes get credentials by their environment or their role")
    place, question, query = root.partition("?")
    return f"{place.rstrip('/')}/studies/{name}{question}{query}"
