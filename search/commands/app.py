"""The command line itself and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import typer

app = typer.Typer(
    name="python -m search",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Finds the compressed versions of a YOLO model that trade accuracy against latency best on your device.",
    epilog="Start with: python -m search demo. Add --debug to any command for full tracebacks.",
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DATA = "Ultralytics data.yaml, or for classification a folder with train/<class>/ and val/<class>/"


class StudyPlace(click.ParamType):
    """A study folder, or the URL of one, which is brought here to be read: all of it, or what tells of its front."""

    name = "DIR"

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The folder. Raises UserError if the URL cannot be read."""
        from search.storage.urls import is_url

        if not is_url(value):
            return Path(value)
        from search.storage.mirror import bring

        return bring(value, whole=self._whole)


_HELP = "A study folder, such as results/demo, or the URL of one, such as s3://bucket/studies/demo."
StudyDir = Annotated[Path, typer.Argument(metavar="DIR", click_type=StudyPlace(whole=True), help=_HELP)]
Findings = Annotated[Path, typer.Argument(metavar="DIR", click_type=StudyPlace(whole=False), help=_HELP)]
Place = Annotated[str, typer.Argument(metavar="DIR", help=_HELP)]
Work = Annotated[
    Path | None, typer.Option(help="Where to work on a study behind a URL [default: in the user's cache].")
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
