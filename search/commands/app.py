"""The command line itself and the options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.places import StudyDir as StudyDir  # what most commands take

if TYPE_CHECKING:
    from search.study import Constraints

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
MaxLatency = Annotated[float | None, typer.Option("--max-latency-ms", min=0, help="Only what is as fast, undisturbed.")]
MaxSize = Annotated[float | None, typer.Option("--max-size-mb", min=0, help="Only what is as small.")]
MaxDrop = Annotated[float | None, typer.Option("--max-drop", min=0, max=1, help="Of accuracy; 0.01 is a point.")]
Devices = Annotated[
    str,
    typer.Option(help="Where each stage runs, with commas between: cpu:3, cpu:0-3 or cuda:1 (default: a core each)."),
]


def limits(latency_ms: float | None, size_mb: float | None, drop: float | None) -> Constraints:
    """The limits of a command line, as a study has them."""
    from search.study import Constraints

    return Constraints(max_latency_ms=latency_ms, max_size_mb=size_mb, max_accuracy_drop=drop)
