"""Accuracy of an exported file: Ultralytics' own validator, running the file on its runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.backends.base import BaseBackend

from search.measure.far import sessions_of
from search.measure.quiet import working
from search.runtimes.session import Runtime
from search.tasks.accuracy import Accuracy
from search.tasks.table import kind_of_view
from search.ultra import quiet_ultralytics

ONNX_CPU = Runtime()


def measure_accuracy(
    model: Path, data: Path, *, split: str = "val", image_size: int, runtime: Runtime = ONNX_CPU
) -> Accuracy:
    """Validates the model file at ``model`` on a ``split`` of ``data``, one image at a time.

    Args:
        model: a file with the metadata that Ultralytics writes.
        data: the ``data.yaml`` of a study's view, which says what the task is.
        split: ``val`` or ``test``.
        image_size: the side of the model's square input, in pixels.
        runtime: what runs the file; in a child process, if it has an environment of its own.

    Raises:
        UserError: the runtime cannot open the file, or its environment cannot be made.
    """
    kind = kind_of_view(data)
    with quiet_ultralytics(), tempfile.TemporaryDirectory() as folder, _run_by(runtime):
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
def _run_by(runtime: Runtime) -> Generator[None]:
    """Has Ultralytics run exported files by the runtime that they are timed with, and not by backends of its own.

    Between two images it lets a measurement that wants quiet go first.
    """
    with working() as pause, sessions_of(runtime) as load:

        class SessionBackend(BaseBackend):
            def load_model(self, weight: Any) -> None:
                self.session = load(Path(weight))
                self.apply_metadata(self.read_metadata(weight))

            def forward(self, im: Tensor) -> list[np.ndarray[Any, Any]]:
                pause()
                [item] = self.session.inputs
                return self.session.run([im.cpu().numpy().astype(item.dtype, copy=False)])

        original = AutoBackend._BACKEND_MAP
        AutoBackend._BACKEND_MAP = dict.fromkeys(original, SessionBackend) | {"pt": original["pt"]}
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, runtime.threads))  # a file of PyTorch's runs on these
        try:
            yield
        finally:
            AutoBackend._BACKEND_MAP = original
            torch.set_num_threads(threads)
