"""Writes a trained model in other formats than the ONNX file that was measured, by Ultralytics' exporter."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from search.formats import FORMATS, check_format
from search.stages.attention import EfficientAttentionBlock
from search.stages.export import OPSET, run_exporter

NO_CHECKS = "ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS"  # they end in pip; ``why_not_here`` has checked before
STREAMS = (1, 2)  # standard output and error


class FlatAttention(nn.Module):
    """The same as ``EfficientAttentionBlock`` with a one-dimensional convolution over the channels.

    The block turns its tensor so that channels lie along the height. pnnx, which knows no batch axis, gets that
    wrong, and ncnn crashes on its file.
    """

    def __init__(self, block: EfficientAttentionBlock) -> None:
        super().__init__()
        size = block.conv.weight.shape[2]
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)
        self.conv.weight = nn.Parameter(block.conv.weight.detach()[..., 0].clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        n, channels = x.shape[:2]
        means = functional.adaptive_avg_pool2d(x, 1).reshape(n, 1, channels)
        return x * (2 * self.conv(means).reshape(n, channels, 1, 1).sigmoid())


def export_format(
    model: nn.Module,
    name: str,
    *,
    image_size: int,
    folder: Path,
    fp16: bool = False,
    opset: int = OPSET,
) -> Path:
    """Writes ``model`` in the format ``name`` into ``folder``, whole or not at all, and returns the file or folder.

    The graph is the model's own. ``Export``'s rewrites are for ONNX Runtime; in a runtime that computes in 16 bits, the
    exponentials of ``fast_dfl`` would overflow.

    It is named as Ultralytics' loader expects: ``model_openvino_model``, for example. It takes one image (1, 3,
    image_size, image_size) in [0, 1] and gives (1, 4 + classes, anchors), boxes as (x, y, width, height) in pixels, in
    LiteRT as fractions of ``image_size``. Nothing is downloaded or installed for it.

    Args:
        model: a detection model of Ultralytics.
        name: a key of ``FORMATS``.
        image_size: pixels, a multiple of the stride.
        folder: made if it is not there.
        fp16: weights in 16-bit float.
        opset: of an ONNX file, and of the one that TensorRT reads.

    Raises:
        UserError: this machine cannot write the format, or the format cannot carry 16-bit weights; and what to do.
    """
    check_format(name, "fp16" if fp16 else "fp32", gpu=torch.cuda.is_available())
    form = FORMATS[name]
    arguments: dict[str, Any] = {"format": form.exporter, "imgsz": image_size, "device": "0" if form.gpu else "cpu"}
    if name in {"onnx", "tensorrt"}:
        arguments |= {"opset": opset, "simplify": True}
    if fp16:
        arguments["quantize"] = 16
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary, _alone():
        written = run_exporter(_for_format(deepcopy(model), name), Path(temporary), **arguments)
        if name == "ncnn":
            (written / "model_ncnn.py").unlink()  # a sample that only runs in the temporary folder
        target = folder / written.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(written, target)
    return target


def _for_format(model: nn.Module, name: str) -> nn.Module:
    """``model``, changed in place where a format's converter gets a block wrong."""
    if name == "ncnn":
        for parent in list(model.modules()):
            for key, child in list(parent.named_children()):
                if isinstance(child, EfficientAttentionBlock):
                    setattr(parent, key, FlatAttention(child))
    return model


@contextmanager
def _alone() -> Generator[None]:
    """Keeps converters from installing packages, from sending usage statistics, and from printing.

    OpenVINO reports its import and each conversion to Intel if the package for it can be imported. pnnx is a program
    of its own, which writes to the process's streams; ``--debug`` keeps them.
    """
    from ultralytics.utils import VERBOSE

    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]  # as if not installed
    before = os.environ.get(NO_CHECKS)
    os.environ[NO_CHECKS] = "1"
    try:
        with nullcontext() if VERBOSE else _silent_streams():
            yield
    finally:
        os.environ.pop(NO_CHECKS)
        if before is not None:
            os.environ[NO_CHECKS] = before


@contextmanager
def _silent_streams() -> Generator[None]:
    """Sends what this process and its children write to the standard streams nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in STREAMS]
    try:
        with Path(os.devnull).open("wb") as nowhere:
            for stream in STREAMS:
                os.dup2(nowhere.fileno(), stream)
        yield
    finally:
        for stream, copy in zip(STREAMS, kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
