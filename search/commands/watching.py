"""A study seen from outside, while it runs and after: the live page, and TensorBoard's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.app import StudyDir, app


@app.command(epilog="Example: python -m search watch results/my-model --port 8080 --no-browser")
def watch(
    folder: StudyDir,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1 (default: a free one).")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it.")] = True,
) -> None:
    """Serves a page for this machine alone that shows a study as it goes on; begun, ended or still to come."""
    from search.live.watch import watch as serve

    def ready(url: str) -> None:
        waits = "" if (folder / "study.yaml").is_file() else f"; {folder} holds no study yet, the page waits for it"
        typer.echo(f"{url} shows {folder} until Ctrl-C{waits}")

    serve(folder, port=port, browser=browser, on_ready=ready)


@app.command(epilog="Example: python -m search tensorboard results/my-model --follow")
def tensorboard(
    folder: StudyDir,
    out: Annotated[Path | None, typer.Option(help="Where the event files go (default: DIR/tensorboard).")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Add trials as they end, until Ctrl-C.")] = False,
) -> None:
    """Writes the trials of a study for TensorBoard: learning curves, results, and recipes as parameters."""
    import time

    from search.live.tensorboard import FOLDER, write_events
    from search.results import open_study

    place = out or folder / FOLDER
    try:
        while True:
            written = write_events(open_study(folder)[1], place)
            if written or not follow:
                typer.echo(f"{written} trials added; look at them with: tensorboard --logdir {place}")
            if not follow:
                return
            time.sleep(5)
    except KeyboardInterrupt:
        return
