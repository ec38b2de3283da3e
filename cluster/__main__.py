"""The command line: ``python -m cluster --help``. Studies as jobs on a Ray cluster."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import UserError
from cluster.render.command import render

if TYPE_CHECKING:
    from cluster.jobs import Job, Jobs

app = typer.Typer(
    name="python -m cluster",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs studies as jobs on a Ray cluster, and brings their folders home.",
    epilog="Start with: python -m cluster submit study.yaml --address http://HOST:8265 --with-data. "
    "Add --debug to any command for full tracebacks.",
)
Address = Annotated[
    str | None,
    typer.Option(help="The cluster's dashboard (default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, http://127.0.0.1:8265)."),
]
TokenFile = Annotated[
    Path | None, typer.Option(help="A file with the cluster's token (default: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH).")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id that submit printed.")]
Root = Annotated[str, typer.Option(help="The folder on the cluster's head that holds all studies, or a URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ROOT = "~/yolo-front"

app.command(epilog="Example: python -m cluster render raycluster --spec cluster.yaml --out manifests")(render)


@app.command(epilog="Example: python -m cluster submit study.yaml --address http://head:8265 --with-data")
def submit(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    address: Address = None,
    token_file: TokenFile = None,
    with_data: Annotated[bool, typer.Option("--with-data", help="Ship the data set too (up to 100 MB).")] = False,
    data: Annotated[str | None, typer.Option(help="Where the data set is on the cluster.")] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install the dependencies on the cluster's nodes.")
    ] = False,
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Starts a study as a job, or goes on with it if it began there before, and prints the job's id."""
    from cluster.inputs import read_inputs
    from cluster.package import bytes_text
    from cluster.submit import submit_study

    if with_data and data is not None:
        raise UserError("--with-data ships the data set, --data names one on the cluster: give one of them")
    inputs = read_inputs(study, with_data=with_data, data=data)
    done = submit_study(_connect(address, token_file), inputs, root=root, install=install)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    typer.echo(done.job)
    typer.echo(f"{bytes_text(done.bytes)} shipped; next: python -m cluster logs {done.job} --follow", err=True)


@app.command(epilog="Example: python -m cluster status my-model-1f3a5b7c --json")
def status(job: JobId, address: Address = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Shows how a job is doing."""
    found = _connect(address, token_file).info(job)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        typer.echo(_row(found))
        typer.echo("\n".join(found.message.strip().splitlines()[-1:]))  # of a failed job, the end of its log


@app.command(epilog="Example: python -m cluster logs my-model-1f3a5b7c --follow")
def logs(
    job: JobId,
    address: Address = None,
    token_file: TokenFile = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job ends; exit code 1 if it failed.")
    ] = False,
) -> None:
    """Prints what a job has printed."""
    jobs = _connect(address, token_file)
    if not follow:
        typer.echo(jobs.logs(job), nl=False)
        return
    ended = jobs.follow(job, partial(typer.echo, nl=False))
    typer.echo(f"{ended.id}: {ended.status}", err=True)
    if ended.status != "SUCCEEDED":
        raise typer.Exit(1)


@app.command(epilog="Example: python -m cluster stop my-model-1f3a5b7c")
def stop(job: JobId, address: Address = None, token_file: TokenFile = None) -> None:
    """Ends a job and waits until it has ended; what its study finished is kept, and submit goes on with it."""
    typer.echo(_row(_connect(address, token_file).stop(job)))


@app.command("list", epilog="Example: python -m cluster list --address http://head:8265")
def list_jobs(address: Address = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """Lists the jobs that run studies, or did, the latest first."""
    found = _connect(address, token_file).list()
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in found]))
        return
    if not found:
        typer.echo("no studies were submitted to this cluster since it started", err=True)
    for job in found:
        typer.echo(_row(job))


@app.command(epilog="Example: python -m cluster fetch my-model-1f3a5b7c --out results/my-model")
def fetch(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or a study's name.")],
    address: Address = None,
    token_file: TokenFile = None,
    out: Annotated[Path | None, typer.Option(help="The study folder here (default: results/<name>).")] = None,
    root: Root = ROOT,
    as_json: Json = False,
) -> None:
    """Brings a study folder home, whole or not at all; also while the study runs."""
    from cluster.fetch import fetch as bring
    from cluster.package import bytes_text
    from cluster.places import folder_of

    jobs = _connect(address, token_file)
    known = next((found for found in jobs.list() if job in (found.id, found.study)), None)
    if known is None or known.study is None or known.folder is None:
        name, folder = job, folder_of(job, root)  # from before the cluster was started anew
    else:
        name, folder = known.study, known.folder
    place = out or Path("results") / name
    fetched = bring(jobs, folder, place, lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps({"folder": str(place), **asdict(fetched)}))
        return
    typer.echo(
        f"{place}: {fetched.files} files, {bytes_text(fetched.bytes)}, of it new {bytes_text(fetched.new_bytes)}"
    )
    typer.echo(f"Next: python -m search front {place}", err=True)


def _connect(address: str | None, token_file: Path | None) -> Jobs:
    from cluster.address import find_cluster
    from cluster.jobs import Jobs

    return Jobs(find_cluster(address, token_file))


def _row(job: Job) -> str:
    """One line: id, state, study's folder, when it started, how long it ran."""
    began = "" if job.started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started))
    seconds = 0 if job.started is None else (job.ended or time.time()) - job.started
    return f"{job.id}  {job.status}  {began}  {seconds / 60:.1f} min  {job.folder or ''}".rstrip()


def main() -> None:
    """Runs a command; the user's errors are one line and exit code 2, ours one line and exit code 1."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())
        if isinstance(error, UserError):
            typer.echo(f"error: {text}", err=True)
            sys.exit(2)
        typer.echo(f"error: {type(error).__name__}: {text} (a bug; --debug shows the traceback)", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
