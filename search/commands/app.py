"""The command line itself and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors, and one line at the end.")]
StudyDir = Annotated[Path, typer.Argument(metavar="DIR", help="A study folder, such as results/demo.")]
