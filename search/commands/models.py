"""Single models: replay a recipe, measure a file, and what each technique does alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from search.commands.app import DATA, Json, app

TARGETS = "the target's"  # the default of what its file may say


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
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The file to measure.")],
    against: Annotated[Path | None, typer.Option(help="The file to compare with.", show_default="itself")] = None,
    data: Annotated[Path | None, typer.Option(help=f"{DATA}, to measure accuracy too.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "val",
    target: Annotated[
        str, typer.Option(help="Where to run it: a name that `targets` lists, or a .yaml.")
    ] = "onnxruntime-cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the runtime.", show_default=TARGETS)
    ] = None,
    runs: Annotated[int | None, typer.Option(min=10, help="Timed pairs, at most.", show_default=TARGETS)] = None,
    precision: Annotated[
        float | None, typer.Option(min=1e-4, help="The ratio's interval that is narrow enough.", show_default=TARGETS)
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Longest time to spend.", show_default=TARGETS)] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Memory, throughput and end to end, too.")] = False,
    batch: Annotated[int, typer.Option(min=2, help="--profile: pictures in one run.")] = 8,
    streams: Annotated[
        int | None, typer.Option(min=1, help="--profile: sessions at once.", show_default="as fill the cores")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="--profile: a folder of images for end to end.", show_default="one made up")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measures a model file: latency beside another file, size, and accuracy if given data."""
    from search.measure.file import Wish, measure_file
    from search.target import load_target

    given = {"threads": threads, "runs": runs, "precision": precision, "seconds": seconds}
    own = load_target(target, **{key: value for key, value in given.items() if value is not None})
    wish = Wish(batch=batch, streams=streams, images=images) if profile else None
    result = measure_file(model, target=own, against=against, data=data, split=split, profile=wish)
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
    only: Annotated[str, typer.Option(help="Names or patterns, with commas between (default: all).")] = "",
    image_size: Annotated[int | None, typer.Option(help="Pixels (default: as the model was trained).")] = None,
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


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
