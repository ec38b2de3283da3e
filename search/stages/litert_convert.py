"""Turns a saved PyTorch program into a .tflite file. A script, run in the environment ``LITERT`` by ``write_litert``.

    python -I litert_convert.py FOLDER

FOLDER holds ``program.pt2`` (``torch.export``, one image in, one tensor out), ``settings.json`` (``Settings``) and,
for static quantization, ``images.npy`` (count, 3, side, side) float32. It writes ``model.tflite`` there. Nothing of the
project is imported: its packages are there in other versions.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["float", "static", "dynamic", "weight_only"]
Keep = Literal["none", "ends", "output", "head"]
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")
DECODER = re.compile(r"_dfl[/;]")  # the operator that makes distances of distributions, a convolution without training
SIGNATURE, INPUT = "serving_default", "args_0"  # litert-torch's names


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the numbers of the file are stored and computed.

    ``keep`` says which of the operators with trained weights stay in float: the ``ends`` are those that come first or
    last, ``output`` the last ones, ``head`` all with that part of a name in theirs. What comes after the last ones
    always does.
    """

    kind: Kind
    per_channel: bool = True
    keep: Keep = "none"
    head: str = ""


@dataclass(frozen=True)
class Operator:
    """A node of a file's graph: its kind, its name for the quantizer, and the tensors that it reads and makes."""

    kind: str
    scope: str
    inputs: Collection[int]
    outputs: Collection[int]

    @property
    def name(self) -> str:
        """The module that it came from, without the other modules that share its constants."""
        return self.scope.split(";;")[0]

    @property
    def trained(self) -> bool:
        """Whether it has trained weights."""
        return self.kind in CONVOLUTIONS and not DECODER.search(self.name)


def decode_operators(operators: Sequence[Operator]) -> list[Operator]:
    """The operators after the last ones with trained weights, which make boxes and scores of the raw outputs.

    One scale for boxes and scores, or for the softmax of distributions, costs points of accuracy and saves no time.
    """
    return [operator for operator, needed in _backwards(operators) if not operator.trained and not needed]


def last_operators(operators: Sequence[Operator]) -> list[Operator]:
    """The operators with trained weights that no other such comes after."""
    return [operator for operator, needed in _backwards(operators) if operator.trained and not needed]


def first_operators(operators: Sequence[Operator]) -> list[Operator]:
    """The operators with trained weights that no other such comes before."""
    reached: set[int] = set()
    found: list[Operator] = []
    for operator in operators:
        after = bool(reached & set(operator.inputs))
        if operator.trained and not after:
            found.append(operator)
        if operator.trained or after:
            reached |= set(operator.outputs)
    return found


def float_operators(operators: Sequence[Operator], settings: Settings) -> list[Operator]:
    """The operators that stay in float."""
    kept = decode_operators(operators)
    match settings.keep:
        case "ends":
            kept += first_operators(operators) + last_operators(operators)
        case "output":
            kept += last_operators(operators)
        case "head":
            kept += [operator for operator in operators if settings.head in operator.name and operator not in kept]
        case "none":
            pass
    return kept


def _backwards(operators: Sequence[Operator]) -> Iterator[tuple[Operator, bool]]:
    """Each operator, from the last on, and whether one with trained weights comes after it."""
    needed: set[int] = set()
    for operator in reversed(operators):
        before = bool(needed & set(operator.outputs))
        yield operator, before
        if operator.trained or before:
            needed |= set(operator.inputs)


def write_float(program: Path, path: Path) -> None:
    """Converts the program in 32-bit float."""
    import litert_torch  # pyright: ignore[reportMissingImports]
    import torch

    exported = torch.export.load(program)
    assert exported.example_inputs is not None  # saved with it
    litert_torch.convert(exported.module(), exported.example_inputs[0]).export(str(path))


def quantized(path: Path, settings: Settings, images: Any) -> bytes:
    """The float file at ``path`` with integers as ``settings`` say; ``images`` (count, 3, side, side) or None.

    Weights are clipped where that rounds them best: Sakr et al., "Optimal Clipping and Magnitude-aware Differentiation
    for Improved Quantization-aware Training", arXiv 2206.06501. Unclipped ones cost up to half a point.
    """
    from ai_edge_quantizer import qtyping  # pyright: ignore[reportMissingImports]
    from ai_edge_quantizer.quantizer import AlgorithmName, Quantizer  # pyright: ignore[reportMissingImports]

    names, granularity = qtyping.TFLOperationName, qtyping.QuantGranularity
    quantizer = Quantizer(str(path))
    scales = granularity.CHANNELWISE if settings.per_channel else granularity.TENSORWISE
    # What has trained weights, which OCTAV clips; it does not take the constants of other operators.
    chosen = [(names.ALL_SUPPORTED, AlgorithmName.MIN_MAX_UNIFORM_QUANT)]
    chosen += [(names(kind), AlgorithmName.OCTAV) for kind in CONVOLUTIONS]
    for kind, algorithm in chosen:
        match settings.kind:
            case "static":
                quantizer.add_static_config(".*", kind, 8, 8, scales, algorithm)
            case "dynamic":
                quantizer.add_dynamic_config(".*", kind, 8, scales, algorithm)
            case _:
                quantizer.add_weight_only_config(".*", kind, 8, scales, algorithm)
    left = [(".*", names.INPUT), (".*", names.OUTPUT)] if settings.kind == "static" else []
    left += [
        (f"^{re.escape(operator.scope)}$", names(operator.kind))
        for operator in float_operators(read_operators(path), settings)
        if operator.kind in list(names)  # any other stays in float by itself
    ]
    for pattern, operation in left:
        quantizer.update_quantization_recipe(pattern, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)
    ranges = _extremes(path, quantizer, images) if settings.kind == "static" else None
    return bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)


def read_operators(path: Path) -> list[Operator]:
    """The operators of a .tflite file, in its order."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils  # pyright: ignore[reportMissingImports]

    model = tfl_flatbuffer_utils.read_model(str(path))
    (graph,) = model.subgraphs
    kinds = [tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME.get(code.builtinCode) for code in model.operatorCodes]
    return [
        Operator(
            kind=str(getattr(kinds[operator.opcodeIndex], "value", "other")),
            scope=tfl_flatbuffer_utils.get_op_scope(operator, graph.tensors),
            inputs=frozenset(int(index) for index in operator.inputs),
            outputs=frozenset(int(index) for index in operator.outputs),
        )
        for operator in graph.operators
    ]


def _extremes(path: Path, quantizer: Any, images: Any) -> Any:
    """The least and the greatest value of each tensor over all images.

    Unasked, the quantizer takes moving averages of the images' extremes, which depend on the images' order.
    """
    from ai_edge_quantizer.calibrator import Calibrator  # pyright: ignore[reportMissingImports]
    from ai_edge_quantizer.recipe_manager import RecipeManager  # pyright: ignore[reportMissingImports]
    from ai_edge_quantizer.utils.qsv_utils import min_max_update  # pyright: ignore[reportMissingImports]

    recipe = RecipeManager()
    recipe.load_quantization_recipe(quantizer.get_quantization_recipe())
    calibrator = Calibrator(path.read_bytes(), num_threads=1, qsv_update_func=min_max_update)
    calibrator.calibrate({SIGNATURE: [{INPUT: image[None]} for image in images]}, recipe)
    return calibrator.get_model_qsvs()


def main(folder: Path) -> None:
    """Does what the files in ``folder`` ask for."""
    import numpy as np

    settings = Settings(**json.loads((folder / "settings.json").read_text()))
    path = folder / "model.tflite"
    write_float(folder / "program.pt2", path)
    if settings.kind != "float":
        images = np.load(folder / "images.npy") if settings.kind == "static" else None
        path.write_bytes(quantized(path, settings, images))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main(Path(sys.argv[1]))
