"""From a picture of a camera to an answer, timed beside the baseline: what goes before and after the model counts too.

Decoding does not: a picture is (H, W, 3) bytes, blue first. A detector's goes through letterbox, model and
non-maximum suppression to boxes in its own pixels, a classifier's through a crop of the middle, model and the five
likeliest classes. The steps around the model are those of search/runtimes/{detection,classification}.py, in numpy and
on one thread, whatever else is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from search.errors import MeasurementError
from search.measure.latency import clock_of
from search.measure.pairs import Clock, ClockName
from search.measure.ratio import Floats, paired_ratio
from search.runtimes import classification, detection
from search.runtimes.session import Runtime, Session, checked, made_up
from search.runtimes.table import open_session

SESSIONS, PAIRS, WARM_UP = 5, 10, 3
Task = Literal["detect", "classify"]
Before = Callable[[NDArray[np.uint8]], tuple[NDArray[Any], Any]]  # the input, and what ``After`` needs to know
After = Callable[[list[NDArray[Any]], Any], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A model with what goes before and after it."""

    task: Task
    before: Before
    session: Session
    after: After

    def answer(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Boxes (n, 6) in the picture's pixels, or classes (n, 2) with their probabilities."""
        planes, note = self.before(image)
        return self.after(self.session.run([planes]), note)


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """Wall times in ms as (p50, p95) of the whole and of its parts; ``ratio`` is by ``clock``.

    ``ratio`` of the whole is candidate over baseline, with its 95 % interval over sessions. ``boxes`` is how many
    boxes, or classes, came out for a picture, on average.
    """

    task: Task
    whole: tuple[float, float]
    before: tuple[float, float]
    model: tuple[float, float]
    after: tuple[float, float]
    ratio: tuple[float, float, float]
    clock: ClockName
    images: int
    boxes: float
    against_boxes: float


def open_chain(path: Path, runtime: Runtime, seed: int = 0) -> Chain:
    """Loads a model and finds out by the shapes of its input and its output what it is.

    Raises:
        MeasurementError: it is neither a detector nor a classifier of colour pictures; says why.
    """
    session = open_session(path, runtime)
    shape = session.inputs[0].shape
    if len(session.inputs) != 1 or len(shape) != 4 or session.inputs[0].dtype.kind != "f" or 3 not in shape[1::2]:
        raise MeasurementError(f"{path} takes no colour picture, (1, 3, H, W) or (1, H, W, 3) in [0, 1]")
    shapes = [output.shape for output in checked(lambda: session.run(made_up(session, path, seed)), path)()]
    match shapes:
        case [(1, _)]:
            return Chain(task="classify", before=_before("classify", session), session=session, after=_classify)
        case [(1, rows, last)] if rows > 4 or last == 6:
            return Chain(task="detect", before=_before("detect", session), session=session, after=_detect)
        case _:
            found = ", ".join(map(str, shapes))
            raise MeasurementError(f"{path} gives {found}: neither (1, 4 + classes, places) nor (1, classes)")


def _before(task: Task, session: Session) -> Before:
    [item] = session.inputs
    channels_last = item.shape[1] != 3
    height, width = item.shape[1:3] if channels_last else item.shape[2:]

    def before(image: NDArray[np.uint8]) -> tuple[NDArray[Any], Any]:
        note = None
        if task == "detect":
            planes, note = detection.letterbox(image, height, width)
        else:
            planes = classification.centre_crop(image, height, width)
        planes = planes.astype(item.dtype, copy=False)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)) if channels_last else planes, note

    return before


def _detect(outputs: list[NDArray[Any]], placement: Any) -> NDArray[Any]:
    return detection.on_picture(detection.find_boxes(outputs[0]), placement)


def _classify(outputs: list[NDArray[Any]], note: Any) -> NDArray[Any]:
    return classification.likeliest(outputs[0])


def measure_end_to_end(
    candidate: Path, baseline: Path, images: Sequence[NDArray[np.uint8]], *, runtime: Runtime
) -> EndToEnd:
    """Times both from picture to answer, in turn on the same pictures, over sessions in which both are loaded anew.

    Raises:
        MeasurementError: as ``open_chain``, or the two are not for the same task, or Pillow is missing.
    """
    times: list[list[list[tuple[float, float]]]] = []  # pair, column, part, clock
    counts: list[list[int]] = []
    for session in range(SESSIONS):
        pair = [open_chain(path, runtime) for path in (candidate, baseline)]
        if pair[0].task != pair[1].task:
            raise MeasurementError(f"{candidate} is made to {pair[0].task}, {baseline} to {pair[1].task}")
        clock = clock_of(runtime)
        try:
            for number in range(WARM_UP):
                for chain in pair:
                    chain.answer(images[number % len(images)])
            for number in range(PAIRS):
                image = images[(session * PAIRS + number) % len(images)]
                order = (0, 1) if number % 2 == 0 else (1, 0)
                found = {column: _timed(pair[column], image, clock) for column in order}
                times.append([found[0][0], found[1][0]])
                counts.append([found[0][1], found[1][1]])
        except ImportError as error:
            raise MeasurementError(f"a classifier's pictures need Pillow: {error}") from error
    return summarise(
        pair[0].task, np.array(times), np.array(counts), len(images), "wall" if runtime.threads > 1 else clock.name
    )


def _timed(chain: Chain, image: NDArray[np.uint8], clock: Clock) -> tuple[list[tuple[float, float]], int]:
    """Milliseconds of the three parts by the wall and by the CPU clock, and how many answers there were."""
    marks = [(clock.wall(), clock.cpu())]
    planes, note = chain.before(image)
    marks.append((clock.wall(), clock.cpu()))
    outputs = chain.session.run([planes])
    marks.append((clock.wall(), clock.cpu()))
    answer = chain.after(outputs, note)
    marks.append((clock.wall(), clock.cpu()))
    steps = np.diff(np.array(marks, dtype=np.int64), axis=0) / 1e6
    return [(float(wall), float(cpu)) for wall, cpu in steps], len(answer)


def summarise(task: Task, times: Floats, counts: NDArray[Any], images: int, clock: ClockName) -> EndToEnd:
    """What is told of the times in ms, of the shape (pairs, 2 models, 3 parts, 2 clocks), the wall's first.

    ``counts`` (pairs, 2) are the answers to each picture; there are ``PAIRS`` pairs to a session.
    """
    wall = times[:, 0, :, 0]
    whole = times[..., 0 if clock == "wall" else 1].sum(axis=2)

    def spread(values: Floats) -> tuple[float, float]:
        return float(np.percentile(values, 50)), float(np.percentile(values, 95))

    boxes, against_boxes = (float(value) for value in counts.mean(axis=0))
    return EndToEnd(
        task=task,
        whole=spread(wall.sum(axis=1)),
        before=spread(wall[:, 0]),
        model=spread(wall[:, 1]),
        after=spread(wall[:, 2]),
        ratio=paired_ratio(whole[:, 0], whole[:, 1], np.arange(len(whole)) // PAIRS),
        clock=clock,
        images=images,
        boxes=boxes,
        against_boxes=against_boxes,
    )
