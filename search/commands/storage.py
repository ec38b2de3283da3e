"""A study and its storages: brought in step."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from search.commands.app import Json, app
from search.commands.places import Place, Work, opened


@app.command(epilog="Example: python -m search sync s3://bucket/studies/my-model")
def sync(
    place: Place,
    work: Work = None,
    down: Annotated[bool, typer.Option("--down", help="Only bring; also while the study runs elsewhere.")] = False,
    as_json: Json = False,
) -> None:
    """Brings a study's folder, its URL and Optuna's storage in step; prints the folder. No study yet is no error."""
    from search.results import open_study
    from search.storage.hold import held

    folder = opened(place, work)
    if not down:
        config = open_study(folder)[0] if (folder / "study.yaml").is_file() else None
        with held(folder, config):
            pass
    there = (folder / "study.yaml").is_file()
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "study": there}))
    else:
        typer.echo(str(folder) if there else f"{folder}: no study yet")
