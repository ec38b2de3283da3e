"""A bundle as a service on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.commands.app import Devices, app


@app.command(epilog="Example: python -m search serve results/my-model/bundles/recommended-cloud --port 8000")
def serve(
    folder: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    replicas: Annotated[int, typer.Option(min=1, help="Copies of the model, each in a process of its own.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each copy (default: as it was measured).")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures that a copy runs at once, at most.")] = None,
    split: Annotated[
        int, typer.Option(min=0, help="Stages that run the model as a pipeline, each on a core or device of its own.")
    ] = 0,
    devices: Devices = "",
) -> None:
    """Serves a bundle over HTTP until Ctrl-C or SIGTERM: pictures in, boxes out."""
    from search.errors import UserError
    from search.serving import serve_bundle

    if split and (replicas > 1 or threads):
        raise UserError("--split is one copy, placed by --devices; leave out --replicas and --threads")
    if devices and not split:
        raise UserError("--devices are of the stages of a pipeline; give --split too")
    given = {"port": port, "host": host, "replicas": replicas, "threads": threads, "batch": batch}
    options = {name: str(value) for name, value in given.items() if value is not None}
    raise typer.Exit(serve_bundle(folder, options, stages=split, devices=devices.split(",") if devices else ()))
