"""Writes a model as an ONNX file, by Ultralytics' exporter, after exact rewrites of its graph."""

from __future__ import annotations

import os
import tempfile
from copy import deepcopy
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from ultralytics.engine.exporter import Exporter
from ultralytics.nn.modules.block import DFL

from search.stages.compact import compact
from search.stages.sparse import store_sparse
from search.ultra import quiet_ultralytics
from spaces.recipe import Export

OPSET = 17  # of the ONNX file, where the target does not choose another


class FastDFL(nn.Module):
    """The expectation of the box distributions by one matrix product; the same numbers as ``DFL`` to about 1e-4.

    ``DFL`` takes a softmax over an axis that is not the last, which ONNX Runtime transposes for. Here
    sum(i * exp(x_i)) / sum(exp(x_i)) is a product with the two rows [0 … 15] and [1 … 1]. The logits are clamped so
    that no exponential overflows.
    """

    rows: Tensor  # (2, bins)

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("rows", torch.stack([torch.arange(bins).float(), torch.ones(bins)]))

    def forward(self, x: Tensor) -> Tensor:
        """Maps logits (N, 4 * bins, A) to distances (N, 4, A), in cells of the grid."""
        n, _, anchors = x.shape
        sums = self.rows @ x.view(n, 4, self.bins, anchors).clamp(-40.0, 40.0).exp()  # (N, 4, 2, A)
        return sums[:, :, 0] / sums[:, :, 1]


def rewritten(model: nn.Module, part: Export) -> nn.Module:
    """A copy of ``model`` with the graph rewrites of ``part``, which leave the outputs as they are."""
    copy = deepcopy(model)
    if part.fast_dfl:
        for module in list(copy.modules()):
            if isinstance(dfl := getattr(module, "dfl", None), DFL):
                module.dfl = FastDFL(dfl.c1)
    return copy


def export_onnx(model: nn.Module, part: Export, *, image_size: int, path: Path, opset: int = OPSET) -> Path:
    """Writes ``model`` for one ``image_size``-pixel square image at a time to ``path`` and returns it.

    ``opset`` is the version of ONNX's operators, 13 to 20. The file carries the names, stride and task that
    Ultralytics reads back. Written whole or not at all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        arguments = {"format": "onnx", "imgsz": image_size, "opset": opset, "simplify": True, "device": "cpu"}
        try:
            exported = run_exporter(rewritten(model, part), Path(folder), **arguments)
        except AssertionError as error:
            if "output model too small" not in str(error):
                raise
            exported = Path(folder) / "model.onnx"  # below 0.1 MB, which Ultralytics takes for a broken file
            onnx.checker.check_model(exported, full_check=True)
        os.replace(exported, path)
    return path


def run_exporter(model: nn.Module, folder: Path, **arguments: object) -> Path:
    """Has Ultralytics' exporter write ``model`` for one image at a time, and returns the file or folder.

    It is in ``folder`` and called "model", with what Ultralytics adds for the format. ``arguments`` are its own.
    The model is left with the path as an attribute.
    """
    # Where the exporter puts its file. For some formats it replaces the suffix wherever it is in the path.
    model.pt_path = str(folder / "model.to_export")  # pyright: ignore[reportArgumentType]
    with quiet_ultralytics():
        return Path(Exporter(overrides={"batch": 1, **arguments})(model=model))


def finish_onnx(source: Path, part: Export, *, path: Path) -> Path:
    """Writes the file at ``source`` to ``path`` with what ``part`` has done last, and returns it.

    After quantization, which finds nodes by their names. Written whole or not at all.
    """
    model = onnx.load(source)
    if part.sparse:
        model = store_sparse(model)
    if part.compact:
        model = compact(model)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        onnx.save(model, temporary)
        os.replace(temporary, path)
    return path
