"""Writes a trained model as a LiteRT (TFLite) file, in float or in 8 bits, by Google's converter and quantizer.

They need older packages than the project has, so they run in an environment of their own, which is made on first use.
PyTorch traces the model here; what goes over is a ``torch.export`` program, without any of the project's code.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import warnings
import zipfile
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from ultralytics.engine.exporter import Exporter

from search.environments import LITERT, python_of
from search.errors import UserError
from search.stages import litert_convert
from search.stages.litert_convert import Keep, Settings
from search.stages.precision.calibration import ImageSource, fingerprints
from search.ultra import quiet_ultralytics
from spaces.parts.quantize import Fp32, Int8Dynamic, Int8Static, Quantize, WeightOnly

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
LAST_LINES = 20  # of the converter's, in an error
KEEP: dict[str, Keep] = {"int8": "none", "float_output": "output", "float": "head"}


def write_litert(model: nn.Module, part: Quantize, *, image_size: int, images: ImageSource, path: Path) -> Path:
    """Writes ``model`` in the precision of ``part`` to ``path``, whole or not at all, and returns it.

    The file takes one image (1, 3, image_size, image_size) float32 in [0, 1], and gives float32: a detection model's
    (1, 4 + classes, anchors), with boxes as (x, y, width, height) in fractions of ``image_size``, which is what
    Ultralytics expects of a .tflite file; a classifier's (1, classes). It carries Ultralytics' metadata as it reads
    them, with the names of the calibration images.

    In ``int8`` all layers with trained weights compute in 8 bits with a scale for each output channel; what comes after
    the last of them stays in float, which costs no time and saves the points that the converters' own form loses.
    ``int8_dynamic`` has 8-bit weights and finds the ranges of activations anew for every image. ``weight_only`` unpacks
    8-bit weights when the file is loaded.

    Args:
        model: an Ultralytics model; left untouched.
        part: fp32, int8 (``calibrator: minmax``, not symmetric), int8_dynamic, or weight_only in 8 bits.
        image_size: pixels, a multiple of the stride.
        images: gives so many calibration images; called for ``int8`` only.
        path: where the file goes.

    Raises:
        UserError: LiteRT cannot carry ``part``, or its environment cannot be made.
        RuntimeError: the converter failed; with its last words.
    """
    settings = settings_of(part, model)
    python = python_of(LITERT)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        model = split_hardswish(model) if settings.kind == "static" else model
        metadata = save_program(model, image_size=image_size, folder=folder)
        (folder / "settings.json").write_text(json.dumps(asdict(settings)))
        if isinstance(part, Int8Static):
            seen = images(part.images)
            np.save(folder / "images.npy", np.concatenate(list(seen)))
            metadata |= fingerprints(seen)
        _run(python, folder)
        written = folder / "model.tflite"
        with zipfile.ZipFile(written, "a", zipfile.ZIP_DEFLATED) as archive:  # a reader of the model sees no difference
            archive.writestr("metadata.json", json.dumps(metadata))
        os.replace(written, path)
    return path


def settings_of(part: Quantize, model: nn.Module) -> Settings:
    """What ``part`` means for LiteRT. Raises UserError where it has no such form."""
    match part:
        case Fp32():
            return Settings(kind="float")
        case Int8Static(calibrator="minmax", symmetric=False):
            return Settings(kind="static", per_channel=part.per_channel, keep=KEEP[part.head], head=_head_name(model))
        case Int8Dynamic():
            return Settings(kind="dynamic")
        case WeightOnly(bits=8):
            return Settings(kind="weight_only", keep="ends" if part.skip_ends else "none")
        case _:
            raise UserError(
                f"litert cannot carry quantize: {part.model_dump(mode='json')}; it can fp32, int8 with calibrator: "
                "minmax and symmetric: false, int8_dynamic, and weight_only with bits: 8"
            )


def split_hardswish(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with every Hardswish as ``SplitHardswish``."""
    copy = deepcopy(model)
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Hardswish):
                setattr(parent, name, SplitHardswish())
    return copy


class SplitHardswish(nn.Module):
    """Hardswish as a product of two operators that LiteRT's fast kernels (XNNPACK) have in 8 bits; it has none itself.

    A third of the time of a model in int8. The factors are in an order that the converter does not join again.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps a tensor to one of the same shape."""
        return x * (1 / 6) * functional.relu6(x + 3)


def save_program(model: nn.Module, *, image_size: int, folder: Path) -> dict[str, Any]:
    """Writes ``program.pt2`` into ``folder``: the model as it is to be exported. Returns Ultralytics' metadata."""
    copy: Any = deepcopy(model)
    copy.pt_path = str(folder / "program.pt2")
    with quiet_ultralytics():
        exporter = _ProgramExporter(overrides={"format": "litert", "imgsz": image_size, "batch": 1, "device": "cpu"})
        exporter(model=copy)
    return exporter.metadata


class _ProgramExporter(Exporter):
    """Ultralytics' exporter, which fuses the model and sets its head for the format; the writing is ours."""

    def export_litert(self, prefix: str = "") -> str:
        """Saves the program at the model's path."""
        model = Fractions(self.model, side=self.im.shape[2]) if self.model.task == "detect" else self.model
        program = torch.export.export(model.eval(), (self.im,), strict=False)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of tensors that are part of another
            torch.export.save(program, self.file)
        return str(self.file)


class Fractions(nn.Module):
    """A detection model with boxes in fractions of its image's ``side``."""

    def __init__(self, model: nn.Module, *, side: int) -> None:
        super().__init__()
        self.model, self.side = model, side

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, 3, side, side) to (N, 4 + classes, anchors)."""
        found = self.model(x)
        return torch.cat([found[:, :4] / self.side, found[:, 4:]], 1)


def _head_name(model: Any) -> str:
    """The part of an operator's name in the file that says that it is the head's."""
    head = model.model[-1]
    return f"{type(head).__module__}.{type(head).__qualname__}_{head.i}/"


def _run(python: Path, folder: Path) -> None:
    """Runs the converter on ``folder``, alone: with ``-I`` it imports nothing from beside the script."""
    command = [str(python), "-I", str(Path(litert_convert.__file__)), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **QUIET})
    if done.returncode:
        raise RuntimeError("LiteRT's converter failed:\n" + "\n".join(done.stderr.splitlines()[-LAST_LINES:]))
