"""Accuracy of an exported file: Ultralytics' own validator, running the file on its runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from search.tasks.accuracy import Accuracy
from search.tasks.table import kind_of_view
from search.ultra import quiet_ultralytics


def measure_accuracy(model: Path, data: Path, *, split: str = "val", image_size: int, threads: int = 1) -> Accuracy:
    """Validates the ONNX file at ``model`` on a ``split`` of ``data``, one image at a time.

    Args:
        model: an ONNX file with the metadata that Ultralytics writes.
        data: the ``data.yaml`` of a study's view, which says what the task is.
        split: ``val`` or ``test``.
        image_size: the side of the model's square input, in pixels.
        threads: CPU threads for the runtime.
    """
    kind = kind_of_view(data)
    with quiet_ultralytics(), tempfile.TemporaryDirectory() as folder, _session_threads(threads):
        validator = kind.validator()(
            save_dir=Path(folder),
            args={
                "model": str(model),
                "data": str(kind.trainer_data(data)),
                "split": split,
                "imgsz": image_size,
                "task": kind.name,
                "mode": "val",
                "batch": 1,
                "rect": False,
                "device": "cpu",
                "workers": 0,
                "plots": False,
                "verbose": False,
            },
        )
        validator(model=str(model))
    return kind.accuracy(validator, split)


@contextmanager
def _session_threads(threads: int) -> Generator[None]:
    """Limits the sessions made inside: Ultralytics opens one on every core and has no setting for it."""
    original = onnxruntime.InferenceSession
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def session(path: str, sess_options: onnxruntime.SessionOptions | None = None, **settings: Any) -> Any:
        return original(path, sess_options or options, **settings)

    onnxruntime.InferenceSession = partial(session)
    try:
        yield
    finally:
        onnxruntime.InferenceSession = original
