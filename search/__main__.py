"""The command line: ``python -m search --help``. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from search.tasks.kind import TaskName

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
StudyDir = Annotated[Path, typer.Argument(metavar="DIR", help="A study folder, such as results/demo.")]


@app.command(epilog="Example: python -m search run study.yaml --set budget.minutes=60")
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    out: Annotated[Path | None, typer.Option(help="The study folder [default: results/<name>].")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value, as often as needed.")] = None,
) -> None:
    """Searches as a study file says, into results/<name>."""
    from search.study import load_study

    config = load_study(study, overrides)
    _run(config, out or Path("results") / config.name)


@app.command(epilog="Example: python -m search resume results/demo")
def resume(folder: StudyDir) -> None:
    """Goes on with a study that was cut off; finished records are neither lost nor made again."""
    from search.driver import resume_study
    from search.report.progress import ConsoleProgress, print_front
    from search.results import open_study, summary
    from search.study import check_files

    config, store = open_study(folder)
    check_files(config)
    store = resume_study(config, folder, ConsoleProgress(config, ended=store.trials()))
    print_front(summary(config, store, folder), folder)


@app.command(epilog="Example: python -m search demo --task classify --trials 12 --seed 1")
def demo(
    task: Annotated[TaskName, typer.Option(help="Find digits in pictures, or tell them apart.")] = "detect",
    out: Annotated[Path | None, typer.Option(help="The study folder (results/demo or results/demo-classify).")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many trials to run (12 or 18).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the data, the training and the search.")] = 0,
) -> None:
    """Runs the whole job on handwritten digits, with nothing to download, in a few minutes on two cores."""
    from search.demo import TRIALS, demo_study

    folder = out or Path("results") / ("demo" if task == "detect" else f"demo-{task}")
    _run(demo_study(folder, task=task, trials=trials or TRIALS[task], seed=seed), folder)


@app.command(epilog="Example: python -m search front results/demo --pick recommended --json")
def front(
    folder: StudyDir,
    pick: Annotated[str | None, typer.Option(help="recommended, knee, fastest, smallest or most-accurate.")] = None,
    as_json: Json = False,
) -> None:
    """Shows the front of a study, or one member that a name stands for; works while the study runs."""
    from search.report.progress import print_front
    from search.results import open_study, summary

    config, store = open_study(folder)
    result = summary(config, store, folder)
    if pick:
        result = {**result, "front": [_choose(result, pick)]}
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        print_front(result, folder)


@app.command(epilog="Example: python -m search apply recipe.yaml --model yolov8n.pt --data data.yaml --out best")
def apply(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="A recipe, as beside each artifact.")],
    model: Annotated[str, typer.Option(help="The .pt checkpoint to compress.")],
    data: Annotated[Path, typer.Option(help=f"{DATA}.")],
    out: Annotated[Path, typer.Option(help="The folder to write; must not exist.")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="Write another format too, as often as needed; see doctor.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Replays one recipe on a model and measures the result."""
    from search.apply import apply_recipe, read_recipe

    threads = os.cpu_count() or 1
    record = apply_recipe(
        read_recipe(recipe), model=model, data=data, out=out, seed=seed, threads=threads, formats=formats or ()
    )
    if as_json:
        typer.echo(record.model_dump_json(indent=2))
    else:
        measured = record.measurement
        assert measured and measured.accuracy
        typer.echo(
            f"{out}/model.onnx: {measured.accuracy.metric} {measured.accuracy.value:.3f}, "
            f"latency ×{measured.latency.ratio:.3f}, size ×{measured.size_ratio:.3f}"
        )
        if formats:
            typer.echo(f"{out}: also in {', '.join(formats)}, not measured")


@app.command(epilog="Example: python -m search measure a.onnx --against b.onnx --data data.yaml --split val --json")
def measure(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The file to measure.")],
    against: Annotated[Path | None, typer.Option(help="The file to compare with [default: itself].")] = None,
    data: Annotated[Path | None, typer.Option(help=f"{DATA}, to measure accuracy too.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the runtime.")] = 1,
    runs: Annotated[int, typer.Option(min=10, help="Timed pairs.")] = 150,
    as_json: Json = False,
) -> None:
    """Measures an ONNX file: latency beside another file, size, and accuracy if given data."""
    from search.measure.file import measure_file

    result = measure_file(model, against=against, data=data, split=split, threads=threads, runs=runs)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        typer.echo("\n".join(f"{name:20} {_plain(value)}" for name, value in result.items() if value is not None))


@app.command(epilog="Example: python -m search catalogue --model best.pt --data data.yaml --only 'prune-*' --epochs 3")
def catalogue(
    model: Annotated[Path, typer.Option(help="The .pt checkpoint to compress.")],
    data: Annotated[Path, typer.Option(help="Ultralytics data.yaml.")],
    out: Annotated[Path, typer.Option(help="The folder to write, or to go on with.")] = Path("results/catalogue"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split, for every row.")] = 5,
    lr: Annotated[float, typer.Option(help="Peak learning rate; few epochs want a low one.")] = 5e-4,
    only: Annotated[str, typer.Option(help="Names or patterns, with commas between [default: all].")] = "",
    image_size: Annotated[int | None, typer.Option(help="Pixels [default: as the model was trained].")] = None,
    teacher: Annotated[Path | None, typer.Option(help="A larger model's .pt, for distill-larger.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; each trains on one thread.")] = os.cpu_count() or 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Measures what each technique does alone: size, latency, accuracy right after and after fine-tuning."""
    from search.catalogue import Plan, chosen_names, measure_catalogue
    from search.report.catalogue import progress_line

    names = chosen_names([name.strip() for name in only.split(",") if name.strip()], teacher=bool(teacher))
    plan = Plan(
        model=model, data=data, image_size=image_size, epochs=epochs, lr=lr, seed=seed, jobs=jobs, teacher=teacher
    )  # fmt: skip
    result = measure_catalogue(plan, names, out, lambda *row: typer.echo(progress_line(*row), err=True))
    rows = [row for row in result["rows"] if row["technique"] in names]
    typer.echo(json.dumps(rows, indent=2) if as_json else f"{out}/catalogue.md: {len(rows)} rows")


@app.command(epilog="Example: python -m search techniques")
def techniques() -> None:
    """Lists every technique: its name, the fields of a recipe that use it alone, and what it does."""
    from search.report.catalogue import techniques_page

    typer.echo(techniques_page(), nl=False)


@app.command(epilog="Example: python -m search simulate --seeds 20 --workers 8 --plot engines.svg --json")
def simulate(
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds to compare the engines on.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Virtual workers, all at work at once.")] = 2,
    records: Annotated[list[Path] | None, typer.Option(help="Study folders to make the benchmark from.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot there, .svg or .png.")] = None,
    as_json: Json = False,
) -> None:
    """Compares search engines in simulated time, on a benchmark made from recorded studies."""
    from search.simulate.command import run

    run(seeds=seeds, workers=workers, records=records or [], picture=plot, as_json=as_json)


@app.command(epilog="Example: python -m search doctor --json")
def doctor(as_json: Json = False) -> None:
    """Says what this machine can do and what is missing; exits 2 if something required is."""
    from dataclasses import asdict

    from search.measure.host import doctor as examine
    from search.measure.host import host_info

    checks = examine()
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


def _run(config: Any, folder: Path) -> None:
    from search.driver import run_study
    from search.report.progress import ConsoleProgress, print_front
    from search.results import summary

    store = run_study(config, folder, ConsoleProgress(config))
    print_front(summary(config, store, folder), folder)


def _choose(result: dict[str, Any], pick: str) -> dict[str, Any]:
    from search.errors import UserError
    from search.front import PICKS
    from search.results import choose

    if pick not in PICKS:
        raise UserError(f"--pick {pick}: allowed are {', '.join(PICKS)}")
    return choose(result, pick)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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

        text = " ".join(str(error).split())
        if isinstance(error, (UserError, SpaceError)):
            typer.echo(f"error: {text}", err=True)
            sys.exit(2)
        typer.echo(f"error: {type(error).__name__}: {text} (a bug; --debug shows the traceback)", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
