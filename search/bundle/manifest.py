"""What ``bundle.json`` holds: what the runner needs to know, and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import UserError
from search.runtimes import detection
from search.tasks.kind import TaskName

MODEL, SAMPLE, FILE = "model.onnx", "sample.png", "bundle.json"
Place = Literal["edge", "cloud"]  # where a bundle will run


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Input(_Section):
    """The picture that the model takes, as an array (1, 3, height, width) of ``range``."""

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal["RGB"] = "RGB"
    layout: Literal["NCHW"] = "NCHW"
    range: tuple[float, float] = (0.0, 1.0)
    fit: Literal["letterbox", "centre crop"]


class Thresholds(_Section):
    """Of boxes: the score that is enough, the overlap that is too much, and the largest number of them."""

    confidence: float = detection.CONFIDENCE
    iou: float = detection.IOU
    most: int = detection.MOST


class Tolerance(_Section):
    """How far an answer may be off on another processor: corners in pixels of the picture, and scores."""

    pixels: float = 1.0
    score: float = 0.01


class Sample(_Section):
    """A picture of the bundle and the answer that the study's file gives to it, by ``search.runtimes.answers``."""

    image: Literal["sample.png"] = SAMPLE
    source: str
    answers: tuple[tuple[float, ...], ...]
    tolerance: Tolerance = Tolerance()


class Measured(_Section):
    """The figures of the card; accuracies are fractions, times milliseconds, intervals of 95 %.

    Latency is of a run with ``latency_batch`` pictures; the model in the bundle takes one at a time.
    ``waiting`` is the share of the wall time in which other work held the core, and ``host`` the id and what
    ``host.json`` says of the machine.
    """

    metric: str
    accuracy: float
    accuracy_ci: tuple[float, float] | None
    baseline_accuracy: float
    images: int
    further: dict[str, float]
    test: dict[str, Any] | None
    latency_ms_p50: float = Field(gt=0)
    latency_ms_p95: float
    latency_batch: int = Field(default=1, ge=1)  # bundles of old do not say it
    latency_ratio: float
    latency_ratio_ci: tuple[float, float]
    waiting: float
    runs: int
    clock: str
    runtime: str
    host: str
    machine: dict[str, Any]
    size_bytes: int
    size_ratio: float
    parameters: int
    flops: int


class Manifest(_Section):
    """A bundle: its model, what goes in and comes out, what was measured, and where it comes from."""

    format: Literal[1] = 1
    place: Place = "edge"
    name: str
    task: TaskName
    model: Literal["model.onnx"] = MODEL
    sha256: str
    labels: tuple[str, ...]
    input: Input
    thresholds: Thresholds = Thresholds()
    threads: int = Field(ge=1, le=256)
    packages: dict[str, str]
    sample: Sample
    measured: Measured
    study: str
    pick: str
    record: str
    recipe: dict[str, Any]
    data: dict[str, int]  # images by split
    made_by: str


def read_manifest(folder: Path) -> Manifest:
    """The ``bundle.json`` of a bundle.

    Raises:
        UserError: there is none, or it does not say what it should.
    """
    path = folder / FILE
    if not path.is_file():
        hint = ": unpack it first" if folder.suffix == ".zip" else f": it has no {FILE}"
        raise UserError(f"{folder} is no bundle{hint}")
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "is no UTF-8"}
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; unpack the bundle again, or make a new one") from error
