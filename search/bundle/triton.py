"""The model of a bundle for NVIDIA Triton: https://github.com/triton-inference-server/server.

Triton adds requests up to batches if the model takes any number of pictures. Exports take one, so the copy for
Triton is rewritten, if it then computes the same; else it stays as it is and runs one picture at a time.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import MeasurementError
from search.measure.batch_check import check_batch
from search.measure.batched import rewrite_batch
from search.runtimes.session import Runtime, checked
from search.runtimes.table import open_session

if TYPE_CHECKING:
    import onnx

REPOSITORY, NAME = "triton", "yolo"
BATCH = 8  # pictures at once, at most
DELAY_US = 2000  # for which a picture waits for others
TRIED = 3  # pictures that a rewritten file is checked with


def write_repository(model: Path, folder: Path, *, threads: int) -> None:
    """Writes ``folder/yolo/1/model.onnx`` and ``folder/yolo/config.pbtxt``."""
    place = folder / NAME / "1" / "model.onnx"
    place.parent.mkdir(parents=True)
    several = _rewritten(model, place)
    if not several:
        shutil.copyfile(model, place)
    (folder / NAME / "config.pbtxt").write_text(configuration(place, several=several, threads=threads))


def _rewritten(model: Path, place: Path) -> bool:
    """Writes ``model`` for any number of pictures to ``place``; False if that cannot be or computes something else."""
    try:
        rewrite_batch(model, place, None)
        single, batched = open_session(model, Runtime()), open_session(place, Runtime())
        return not checked(lambda: check_batch(single, batched, TRIED, model), place)()
    except MeasurementError:
        return False


def configuration(model: Path, *, several: bool, threads: int) -> str:
    """The ``config.pbtxt`` of a file, in the text form of ``inference.ModelConfig`` (model_config.proto).

    Args:
        model: the ONNX file, whose names, types and sizes it says again.
        several: whether the first size is the batch, which Triton leaves out.
        threads: of each copy of the model.
    """
    import onnx

    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [_tensor(value, several) for value in graph.input if value.name not in constants]
    outputs = [_tensor(value, several) for value in graph.output]
    batching = f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY_US} }}\n" if several else ""
    return (
        f'name: "{NAME}"\nbackend: "onnxruntime"\nmax_batch_size: {BATCH if several else 0}\n'
        f"input [\n{_joined(inputs)}\n]\noutput [\n{_joined(outputs)}\n]\n{batching}"
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        "version_policy { latest { num_versions: 1 } }\n"
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{threads}" }} }}\n'
    )


def _joined(tensors: list[str]) -> str:
    return ",\n".join(tensors)


def _tensor(value: onnx.ValueInfoProto, several: bool) -> str:
    import onnx

    kinds: dict[int, str] = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.FLOAT16: "TYPE_FP16"}
    content = value.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in content.shape.dim]
    dims = ", ".join(map(str, sizes[1:] if several else sizes))
    return f'  {{ name: "{value.name}" data_type: {kinds[content.elem_type]} dims: [ {dims} ] }}'
