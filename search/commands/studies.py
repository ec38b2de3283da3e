"""Studies: run one, go on with one, the demonstration, and what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from search.commands.app import Json, MaxDrop, MaxLatency, MaxSize, Quiet, StudyDir, app, limits
from search.commands.places import Findings, Place, Work, opened, study_findings, study_folder
from search.tasks.kind import TaskName


@app.command(epilog="Example: python -m search run study.yaml --set budget.minutes=60")
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    out: Annotated[str | None, typer.Option(help="The study folder, or a URL (default: results/<name>).")] = None,
    work: Work = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value, as often as needed.")] = None,
    quiet: Quiet = False,
) -> None:
    """Searches as a study file says, into results/<name>."""
    from search.study import load_study

    config = load_study(study, overrides)
    _run(config, opened(out or f"results/{config.name}", work), quiet)


@app.command(epilog="Example: python -m search resume results/demo")
def resume(place: Place, work: Work = None, quiet: Quiet = False) -> None:
    """Goes on with a study that was cut off; finished records are neither lost nor made again."""
    from search.driver import resume_study
    from search.results import open_study
    from search.study import check_files

    folder = opened(place, work)
    config, _ = open_study(folder)
    check_files(config)
    _show(resume_study, config, folder, quiet)


@app.command(epilog="Example: python -m search finish results/my-model")
def finish(folder: StudyDir, quiet: Quiet = False) -> None:
    """Measures the front of a study again and writes the report, without searching on."""
    from search.driver import finish_study
    from search.results import open_study
    from search.study import check_files

    config, _ = open_study(folder)
    check_files(config)
    _show(finish_study, config, folder, quiet)


@app.command(epilog="Example: python -m search demo --task classify --trials 12 --seed 1")
def demo(
    task: Annotated[TaskName, typer.Option(help="Find digits in pictures, or tell them apart.")] = "detect",
    model: Annotated[str | None, typer.Option(help="Another architecture, such as yolo11n.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="The study folder (results/demo or results/demo-classify).")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many trials to run (12 or 18).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the data, the training and the search.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Runs the whole job on handwritten digits, with nothing to download, in a few minutes on two cores."""
    from search.demo import TRIALS, demo_study

    folder = out or Path("results") / ("demo" if task == "detect" else f"demo-{task}")
    config = demo_study(folder, task=task, model=model, trials=trials or TRIALS[task], seed=seed)
    _run(config, folder, quiet)


@app.command(epilog="Example: python -m search front results/demo --pick recommended --max-latency-ms 5 --json")
def front(
    folder: Findings,
    pick: Annotated[str | None, typer.Option(help="recommended, knee, fastest, smallest or most-accurate.")] = None,
    target: Annotated[str | None, typer.Option(help="Another target of the study (default: its main one).")] = None,
    max_latency_ms: MaxLatency = None,
    max_size_mb: MaxSize = None,
    max_drop: MaxDrop = None,
    as_json: Json = False,
) -> None:
    """Shows the front of a study, that within limits, or one member that a name stands for; also while it runs."""
    from search.errors import UserError
    from search.report.progress import print_front
    from search.results import choose, open_study, summary, within

    config, store = open_study(folder)
    result = summary(within(config, limits(max_latency_ms, max_size_mb, max_drop)), store, folder)
    if target is not None and target != result["target"]:
        if target not in result["others"]:
            raise UserError(
                f"--target {target}: {folder} was measured on {', '.join([result['target'], *result['others']])}"
            )
        result = {**result, **result["others"][target], "target": target}
    picked = known_pick(pick) if pick else None
    if as_json:
        shown = {**result, "front": [choose(result, picked)]} if picked else result
        typer.echo(json.dumps(shown, indent=2))
    else:
        print_front(result, folder, picked)


@app.command(epilog="Example: python -m search report results/my-model --out /tmp/report.html")
def report(
    folder: StudyDir,
    out: Annotated[Path | None, typer.Option(help="The HTML file (default: report.html in the study folder).")] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Embed a few validation images.")] = True,
) -> None:
    """Writes what was found as one HTML file that opens offline, with front.csv, front.json and front.svg beside it."""
    from search.report.html.page import write_all
    from search.results import open_study

    config, store = open_study(folder)
    path = out or folder / "report.html"
    write_all(config, store, folder, out=path, images=images)
    typer.echo(str(path))


@app.command(epilog="Example: python -m search contributions results/demo --pick fastest --pick knee")
def contributions(
    folder: StudyDir,
    picks: Annotated[
        list[str] | None, typer.Option("--pick", help="As of front, as often as needed (default: recommended).")
    ] = None,
    train: Annotated[
        bool, typer.Option("--trained/--cached-only", help="Train what was not trained before: a trial's time each.")
    ] = True,
    smaller: Annotated[
        Path | None, typer.Option(help="A smaller stock model's .pt, trained on the same data, as a rival.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measures a pick with each of its parts switched off, and simple rivals; goes on where it was cut off."""
    from search.ablation import measure_study
    from search.report.contributions import contributions_text, row_line

    names = picks or ["recommended"]
    found = measure_study(
        folder, names, train=train, smaller=smaller, on_row=lambda *row: typer.echo(row_line(*row), err=True)
    )
    typer.echo(
        found.model_dump_json(indent=2, exclude={"measured", "timings"}) if as_json else contributions_text(found)
    )


@app.command(epilog="Example: python -m search compare results/mine results/random --plot growth.svg")
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", parser=study_findings, help="Study folders, or URLs of some."),
    ],
    minutes: Annotated[float | None, typer.Option(min=0.1, help="When to look (default: the shortest's end).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot there, .svg or .png.")] = None,
    as_json: Json = False,
) -> None:
    """Compares studies of the same model and data by the hypervolume that each had reached after the same time."""
    from search.report import compare as report

    result = report.compare(folders, minutes)
    if plot is not None:
        report.plot(result, plot)
    typer.echo(json.dumps(result, indent=2) if as_json else report.table(result))


@app.command(epilog="Example: python -m search transfer results/demo --target openvino-cpu --target ncnn-cpu")
def transfer(
    folder: StudyDir,
    targets: Annotated[list[str], typer.Option("--target", help="A name that `targets` lists, or a .yaml.")],
    picks: Annotated[list[str] | None, typer.Option("--pick", help="As front has it (default: recommended).")] = None,
    as_json: Json = False,
) -> None:
    """Takes picks of a study to other targets: their files for these, timed and validated there; trains nothing."""
    from search.target import load_target
    from search.transfer import table
    from search.transfer import transfer as move

    own = [load_target(name) for name in targets]
    chosen = [known_pick(pick) for pick in picks or ["recommended"]]
    rows = move(folder, own, chosen, lambda row: typer.echo(f"{row.target}: {row.model} {row.reason}", err=True))
    typer.echo(json.dumps([asdict(row) for row in rows], indent=2) if as_json else table(rows))


@app.command(epilog="Example: python -m search check results/tonight --against results/champion --latency-margin 0.05")
def check(
    folder: StudyDir,
    against: Annotated[
        Path,
        typer.Option(
            metavar="CHAMPION_DIR",
            parser=study_folder,
            help="The study whose pick is in use, or its URL.",
        ),
    ],
    pick: Annotated[str, typer.Option(help="The champion's pick, as front has it.")] = "recommended",
    accuracy_margin: Annotated[float, typer.Option(help="To gain; 0.01 is a point, negative allows a loss.")] = 0.0,
    latency_margin: Annotated[float, typer.Option(help="Share of the champion's latency to save.")] = 0.0,
    size_margin: Annotated[float, typer.Option(help="Share of the champion's size to save.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Exits 0 only if a member of the front beats the champion by all margins, timed side by side now; else 1."""
    from search.check import Margins
    from search.check import check as examine
    from search.measure.apart import Apart
    from search.results import open_study

    margins = Margins(accuracy=accuracy_margin, latency=latency_margin, size=size_margin)
    with Apart(open_study(folder)[0].target) as apart:
        verdict = examine(
            folder, against, known_pick(pick), margins, lambda new, old: apart.measure(new, baseline=old)
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(asdict(verdict), indent=2))
    else:
        typer.echo("\n".join([*verdict.reasons, "beaten" if verdict.beaten else "not beaten"]))
    if not verdict.beaten:
        raise typer.Exit(1)


def _run(config: Any, folder: Path, quiet: bool) -> None:
    from search.driver import run_study

    _show(run_study, config, folder, quiet)


def _show(work: Callable[..., Any], config: Any, folder: Path, quiet: bool) -> None:
    """Has one of the driver's functions work on a study, shows it meanwhile, and then what was found."""
    from search.live.displays import display_for
    from search.report.progress import print_front, print_line
    from search.results import summary

    result = summary(config, work(config, folder, display_for(quiet=quiet)), folder)
    if quiet:
        print_line(result, folder)
    else:
        print_front(result, folder)


def known_pick(pick: str) -> str:
    """``pick``, if there is one of this name. Raises UserError."""
    from search.errors import UserError
    from search.front import PICKS

    if pick not in PICKS:
        raise UserError(f"--pick {pick}: allowed are {', '.join(PICKS)}")
    return pick
