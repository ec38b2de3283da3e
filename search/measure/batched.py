"""An ONNX file for one picture, rewritten for several at once.

Exports of a fixed size have the 1 of the batch in the shapes of inputs and outputs and in the targets of reshapes.
Whether a rewritten file computes the same is checked where it runs (``search.measure.batch_check``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.errors import MeasurementError

if TYPE_CHECKING:
    import onnx


def rewritten(sources: tuple[Path, Path], folder: Path, batch: int, kind: str) -> tuple[str, str] | str:
    """Both files for ``batch`` pictures, written into ``folder``; or why there are none.

    Args:
        sources: the candidate and the baseline.
        folder: where to write.
        batch: pictures in one run.
        kind: of the files, a key of ``search.formats.FORMATS``.
    """
    if kind != "onnx":
        return f"a {kind} file is for the batch that it was exported with; only ONNX files are rewritten"
    targets = tuple(folder / f"{name}.onnx" for name in ("candidate", "baseline"))
    try:
        for source, target in zip(sources, targets, strict=True):
            rewrite_batch(source, target, batch)
    except MeasurementError as error:
        return str(error)
    return str(targets[0]), str(targets[1])


def rewrite_batch(source: Path, target: Path, batch: int | None) -> None:
    """Writes ``source`` for ``batch`` pictures to ``target``: input and output shapes, and reshapes to a leading 1.

    With a batch of None, for any number of pictures.

    Raises:
        MeasurementError: the file is missing or broken, has no input of one picture, or reshapes to a shape that it
            computes.
    """
    import onnx

    model = _loaded(source)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constants:
            first = value.type.tensor_type.shape.dim[0] if value.type.tensor_type.shape.dim else None
            if first is None or first.dim_value not in (0, 1):
                raise MeasurementError(
                    f"input {value.name!r} of {source} is not of one picture, so the file is not rewritten for "
                    "several; export it for one"
                )
            _set_size(first, batch)
    for value in graph.output:
        if value.type.tensor_type.shape.dim:
            _set_size(value.type.tensor_type.shape.dim[0], batch)
    del graph.value_info[:]  # shapes of what is between, for one picture
    _rewrite_reshapes(graph, batch, source)
    onnx.save(model, target)


def _loaded(source: Path) -> onnx.ModelProto:
    import onnx

    if not source.is_file():
        raise MeasurementError(f"there is no ONNX file at {source}; export the model first, or correct the path")
    try:
        return onnx.load(source)
    except Exception as error:  # protobuf's, and those of files of weights beside it
        raise MeasurementError(f"{source} is no ONNX file ({error}); export the model again") from error


def _set_size(size: onnx.TensorShapeProto.Dimension, batch: int | None) -> None:
    if batch is None:
        size.dim_param = "batch"
    else:
        size.dim_value = batch


def _rewrite_reshapes(graph: onnx.GraphProto, batch: int | None, source: Path) -> None:
    """Gives each reshape of data a target of its own: other nodes may share the old one."""
    from onnx import numpy_helper

    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            shapes[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    data = {value.name for value in graph.input} - set(shapes)
    for number, node in enumerate(graph.node):
        if not data & set(node.input):
            continue
        data |= set(node.output)
        if node.op_type != "Reshape":
            continue
        if node.input[1] not in shapes:
            raise MeasurementError(
                f"{source} computes the shape of a reshape, {node.name or node.output[0]!r}, so it is not rewritten "
                "for several pictures; export it with fixed sizes, or time one picture at a time"
            )
        shape = shapes[node.input[1]]
        if len(shape) and shape[0] == 1:
            name = f"reshape_{number}_of_{batch or 'any'}"
            target = np.array([batch or 0, *shape[1:]], dtype=np.int64)  # a 0 keeps the size that is there
            graph.initializer.append(numpy_helper.from_array(target, name))
            node.input[1] = name
