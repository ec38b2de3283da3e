"""The machine, the files that people write, and the search engine: doctor, schemas and the simulator."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from search.commands.app import Json, StudyDir, app


@app.command(epilog="Example: python -m search doctor --json")
def doctor(as_json: Json = False) -> None:
    """Says what this machine can do and what is missing; exits 2 if something required is."""
    from search.doctor import doctor as examine
    from search.measure.host import host_info
    from search.measure.target_checks import check_targets

    checks = [*examine(), *check_targets()]
    if as_json:
        typer.echo(json.dumps({"host": asdict(host_info()), "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        for check in checks:
            mark = "ok     " if check.ok else ("MISSING" if check.required else "no     ")
            typer.echo(
                f"{mark} {check.name}: {check.detail}{'' if check.ok or not check.advice else f' — {check.advice}'}"
            )
    if any(check.required and not check.ok for check in checks):
        raise typer.Exit(2)


@app.command(epilog="Example: python -m search targets --json")
def targets(as_json: Json = False) -> None:
    """Lists the targets: what each needs, which precisions it runs, and whether it runs here."""
    from search.measure.target_checks import list_targets

    found = list_targets()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for target in found:
        typer.echo(f"{'ok' if target['here'] else 'no':3} {target['name']:21} {target['about']}")
        typer.echo(f"    runs {', '.join(target['precisions']) or 'every precision'} in {target['format']} files")
        if target["environment"]:
            typer.echo(f"    in an environment of its own: {', '.join(target['environment'])}")
        if not target["here"]:
            typer.echo(f"    {target['why_not']} — {target['advice']}")


@app.command(epilog="Example: python -m search schema --out study.schema.json")
def schema(
    of: Annotated[Literal["study", "space"], typer.Option(help="The file that it describes.")] = "study",
    out: Annotated[Path | None, typer.Option(help="Write it there, and print nothing.")] = None,
) -> None:
    """Prints the JSON schema of a study file or of a space, with which editors complete and check it."""
    from search.schema import schema_text
    from search.store import write_atomically

    if out is None:
        typer.echo(schema_text(of), nl=False)
    else:
        write_atomically(out, schema_text(of))


@app.command(epilog="Example: python -m search simulate --seeds 20 --workers 8 --plot engines.svg --json")
def simulate(
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds to compare the engines on.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Virtual workers, all at work at once.")] = 2,
    engines: Annotated[
        Literal["parts", "samplers"], typer.Option(help="The engine without each part, or with each sampler (slow).")
    ] = "parts",
    records: Annotated[list[Path] | None, typer.Option(help="Study folders to make the benchmark from.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot there, .svg or .png.")] = None,
    as_json: Json = False,
) -> None:
    """Compares search engines in simulated time, on a benchmark made from recorded studies."""
    from search.simulate.command import run

    run(seeds=seeds, workers=workers, engines=engines, records=records or [], picture=plot, as_json=as_json)


@app.command(epilog="Example: python -m search scale --finished 10000 --workers 1000 --json")
def scale(
    finished: Annotated[int, typer.Option(min=10, help="Trials that have ended.")] = 10_000,
    workers: Annotated[int, typer.Option(min=1, help="Trials in flight.")] = 1_000,
    calls: Annotated[int, typer.Option(min=1, help="Trials that end while it is timed.")] = 500,
    size: Annotated[bool, typer.Option("--size", help="Size is an objective too.")] = False,
    records: Annotated[list[Path] | None, typer.Option(help="Study folders to make the benchmark from.")] = None,
    as_json: Json = False,
) -> None:
    """Times suggestions and decisions at rungs in a large simulated study, and the driver's memory."""
    from search.simulate.command import run_scale

    run_scale(finished=finished, workers=workers, calls=calls, size=size, records=records or [], as_json=as_json)


@app.command(epilog="Example: python -m search trust results/my-model --files 10 --json")
def trust(
    folder: StudyDir,
    files: Annotated[int, typer.Option(min=2, help="Model files of the study, evenly over their latencies.")] = 10,
    repeats: Annotated[int, typer.Option(min=2, help="Measurements of each on the machine as it is.")] = 2,
    busy: Annotated[int | None, typer.Option(min=1, help="Busy processes beside (default: one a core).")] = None,
    passes: Annotated[Path | None, typer.Option(help="Keep each pass there, and go on from those in it.")] = None,
    as_json: Json = False,
) -> None:
    """Times a study's files on the quiet machine and on a busy one: how far ratios and their order can be trusted."""
    from search.again import patient
    from search.measure.trust import Pass, Passes, files_of, measure_trust
    from search.study import FinalSettings

    chosen, baseline, config = files_of(folder, files)
    settings, log = config.final or FinalSettings(), Passes(passes, chosen)

    def on_pass(each: Pass) -> None:
        log.add(each)
        beside = f"  beside {each.busy} busy processes" if each.busy else ""
        typer.echo(f"{each.file}  ×{each.latency.ratio:.4f}{beside}", err=True)

    found = measure_trust(
        chosen,
        baseline,
        config.target,
        patient(config.target, settings),
        rounds=settings.rounds,
        repeats=repeats,
        busy=busy,
        kept=log.kept,
        on_pass=on_pass,
    )
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        typer.echo(
            f"{len(found.files)} files, {repeats} times quiet and once beside {found.busy_processes} busy processes: "
            f"repeats differ by {found.repeat_difference:.1%} at most, under load by {found.load_difference:.1%}, "
            f"Kendall's tau {found.kendall_tau:.3f}"
        )
