"""The command line: ``python -m search --help``."""

from __future__ import annotations

import os
import sys

import typer

from search.commands import studies, watching, bundle, serving, models, int8, tools  # noqa: F401 - in the order of the help  # isort: skip
from search.commands import scaling, split, storage  # noqa: F401  # isort: skip
from search.commands.app import app
from search.commands.places import RefusedError


def main() -> None:
    """Runs a command; the user's errors are one line and exit code 2, ours one line and exit code 1."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    os.environ.setdefault("YOLO_VERBOSE", str(debug))
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    try:
        app()
    except Exception as error:
        if debug:
            raise
        from search.errors import UserError
        from spaces.space import SpaceError

        if isinstance(error, RefusedError) and isinstance(error.__cause__, UserError):
            error = error.__cause__
        text = " ".join(str(error).split())
        if isinstance(error, (UserError, SpaceError)):
            typer.echo(f"error: {text}", err=True)
            sys.exit(2)
        typer.echo(f"error: {type(error).__name__}: {text} (a bug; --debug shows the traceback)", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
