"""Arguments that name a study: a folder, or a URL, which is brought into a folder here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


class RefusedError(Exception):
    """A user's error in an argument; its cause is. Typer would make a ValueError its own, with the usage above."""


def study_folder(text: str) -> Path:
    """A study folder: ``text``, or if that is a URL, the folder here into which all of it was brought."""
    return _folder(text, whole=True)


def study_findings(text: str) -> Path:
    """A study folder, without artifacts and baseline if ``text`` is a URL: what tells of the front."""
    return _folder(text, whole=False)


def _folder(text: str, *, whole: bool) -> Path:
    from search.errors import UserError
    from search.storage.urls import is_url

    if not is_url(text):
        return Path(text)
    from search.storage.mirror import bring

    try:
        return bring(text, whole=whole)
    except UserError as error:
        raise RefusedError from error


_HELP = "A study folder, such as results/demo, or the URL of one, such as s3://bucket/studies/demo."
StudyDir = Annotated[Path, typer.Argument(metavar="DIR", parser=study_folder, help=_HELP)]
Findings = Annotated[Path, typer.Argument(metavar="DIR", parser=study_findings, help=_HELP)]
Place = Annotated[str, typer.Argument(metavar="DIR", help=_HELP)]
Work = Annotated[
    Path | None, typer.Option(help="Where to work on a study behind a URL (default: in the user's cache).")
]


def opened(place: str, work: Path | None) -> Path:
    """The folder in which the study at ``place``, a folder or a URL, is worked on; brought up to date.

    Raises:
        UserError: the URL cannot be read, or ``work`` is something else's.
    """
    from search.errors import UserError
    from search.storage.urls import is_url

    if is_url(place):
        from search.storage.mirror import bring

        return bring(place, work=work)
    if work is not None:
        raise UserError(f"--work is for a study behind a URL, and {place} is a folder")
    return Path(place)
