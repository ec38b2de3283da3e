"""Finds what the model of this bundle knows in an image, in all images of a folder, or in a video.

    python run.py IMAGE|FOLDER|VIDEO [--json] [--out DIR]

Needs Python 3.11, onnxruntime, numpy and Pillow (requirements.txt). Errors are one line and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # they need the packages, and --help does not
    import numpy as np
    from frames import Frame
    from model import Model
    from numpy.typing import NDArray


def main() -> int:
    """Runs the command line; returns the exit code."""
    given = _arguments()
    try:
        from model import Model, Refused
    except ImportError as error:
        here = Path(__file__).resolve().parent
        print(f"error: {error}; python -m pip install -r {here / 'requirements.txt'}", file=sys.stderr)
        return 2
    try:
        model = Model(threads=given.threads, confidence=given.confidence, iou=given.iou)
        for told in _answers(model, given.source, given.out):
            print(json.dumps(told) if given.json else _in_words(told))
    except Refused as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough, as with | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", type=Path, metavar="IMAGE|FOLDER|VIDEO")
    parser.add_argument("--json", action="store_true", help="print one JSON object a picture, each on a line")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write pictures with the answers, and answers.jsonl")
    parser.add_argument("--threads", type=_positive, help="CPU threads [default: as it was measured]")
    parser.add_argument("--confidence", type=_share, help="a box's score must be above it [default: bundle.json]")
    parser.add_argument("--iou", type=_share, help="boxes that overlap by more are one [default: bundle.json]")
    return parser.parse_args()


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise ValueError
    return value


def _answers(model: Model, source: Path, out: Path | None) -> Iterator[dict[str, Any]]:
    """What is told of each picture; written to ``out`` as well."""
    from frames import frames
    from model import Refused

    root = source if source.is_dir() else source.parent
    if out is not None and out.resolve() == root.resolve():
        raise Refused(f"--out {out} is the folder of the pictures, which would be written over; give another")
    with ExitStack() as stack:
        lines = None
        for frame in frames(source):
            start = perf_counter()
            answer = model.answer(frame.pixels)
            told = _told(model, frame, answer, 1000 * (perf_counter() - start))
            if out is not None:
                try:
                    _draw(model, frame, answer, out / frame.file.relative_to(root))
                    lines = lines or stack.enter_context((out / "answers.jsonl").open("w", encoding="utf-8"))
                    print(json.dumps(told), file=lines)
                except (OSError, ValueError) as error:
                    raise Refused(f"--out {out} cannot be written to: {error}") from error
            yield told


def _told(model: Model, frame: Frame, answer: NDArray[np.float32], milliseconds: float) -> dict[str, Any]:
    told: dict[str, Any] = {"source": str(frame.file)} | ({} if frame.number is None else {"frame": frame.number})
    told |= {"width": frame.pixels.shape[1], "height": frame.pixels.shape[0], "ms": round(milliseconds, 3)}
    return told | model.as_json(answer)


def _draw(model: Model, frame: Frame, answer: NDArray[np.float32], place: Path) -> None:
    """Writes the picture with its answer to ``place``, or, of a file with several frames, into a folder there."""
    from drawing import drawn

    file = place if frame.number is None else place / f"{frame.number:06d}.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn(frame.pixels, answer, model.labels).save(file)


def _in_words(told: dict[str, Any]) -> str:
    where = told["source"] + (f" frame {told['frame']}" if "frame" in told else "")
    if "classes" in told:
        words = ", ".join(f"{row['label']} {row['score']:.2f}" for row in told["classes"])
    else:
        counts = Counter(row["label"] for row in told["boxes"])
        words = ", ".join(f"{count} {label}" for label, count in counts.most_common()) or "nothing"
    return f"{where}: {words} ({told['ms']:.1f} ms)"


if __name__ == "__main__":
    sys.exit(main())
