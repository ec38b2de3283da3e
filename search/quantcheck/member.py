"""What is wrong with a quantized record of a study, without running its data: from its file and from its records.

Each finding is given where it holds: what the graph shows is about ONNX Runtime's CPU provider as it is here, where the
bytes of a file are can be seen in ONNX files, and numbers are the same for every target.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from search.engine.length import total_epochs
from search.quantcheck.collapse import LOST
from search.quantcheck.device import host_findings, latency_findings, ratio_of
from search.quantcheck.finding import Finding
from search.quantcheck.fused import look, unfused_findings
from search.quantcheck.size import shrink_findings, size_findings
from search.record import Record
from search.target import Target

FLOATS = ("fp32", "fp16")  # kinds of ``quantize`` whose files have floats for weights


def findings_of_member(folder: Path, record: Record, records: Sequence[Record], target: Target) -> list[Finding]:
    """What is wrong with the file of a finished record, and with its accuracy beside that of its trunk in float.

    Takes a fraction of a second.

    Args:
        folder: of the study.
        record: one of its records.
        records: all of them.
        target: the study's main one.
    """
    if record.recipe.quantize.kind == "fp32" or record.state != "complete" or record.artifact is None:
        return []
    return [*_of_file(folder, record, target), *_of_numbers(folder, record, float_leaf(record, records))]


def collapsed(folder: Path, record: Record, records: Sequence[Record]) -> Finding | None:
    """The finding that a record lost its accuracy in quantization, if it did; from numbers alone."""
    if record.recipe.quantize.kind == "fp32" or record.state != "complete":
        return None
    return _collapse(folder, record, float_leaf(record, records))


def float_leaf(record: Record, records: Sequence[Record]) -> Record | None:
    """The finished float record of the same trained trunk; the one with the same rewrites of the graph, if there is."""
    peers = [
        other
        for other in records
        if other.state == "complete"
        and other.artifact is not None
        and other.recipe.quantize.kind == "fp32"
        and other.recipe.trunk_id == record.recipe.trunk_id
    ]
    return min(peers, key=lambda other: other.recipe.export != record.recipe.export, default=None)


def _of_file(folder: Path, record: Record, target: Target) -> list[Finding]:
    """What an ONNX file of integers shows; how ONNX Runtime computes it here, only if that is what runs it."""
    assert record.artifact is not None
    path = folder / record.artifact.path
    if record.artifact.format != "onnx" or record.recipe.quantize.kind in FLOATS:
        return []
    if not path.is_file():  # a study whose files were moved away still has its report
        return []
    return [*(_of_graph(folder, path) if _is_onnx_runtime_here(target) else ()), *size_findings(path)]


def _is_onnx_runtime_here(target: Target) -> bool:
    """Whether a target computes with the CPU provider of the ONNX Runtime that this process has."""
    return (target.runtime, target.provider, target.environment) == ("onnxruntime", "cpu", ())


def _of_graph(folder: Path, path: Path) -> list[Finding]:
    seen, host = look(path), folder / "host.json"
    known = json.loads(host.read_text(encoding="utf-8")).get("instruction_sets", ()) if host.is_file() else ()
    return [*unfused_findings(seen), *host_findings(known, integer_layers=len(seen.integer))]


def _of_numbers(folder: Path, record: Record, leaf: Record | None) -> list[Finding]:
    """Bytes hardly saved and latency gained the wrong way, against the float leaf, and accuracy lost."""
    found: list[Finding] = []
    if leaf is not None and leaf.artifact is not None and record.artifact is not None:
        if record.recipe.quantize.kind not in FLOATS:
            found += shrink_findings(record.artifact.size_bytes, leaf.artifact.size_bytes)
        mine, floats = record.measurement, leaf.measurement
        if mine is not None and floats is not None and mine.host == floats.host:
            found += latency_findings(*ratio_of(mine.latency, floats.latency))
    collapse = _collapse(folder, record, leaf)
    return found if collapse is None else [*found, collapse]


def _collapse(folder: Path, record: Record, leaf: Record | None) -> Finding | None:
    """The finding that accuracy is lost against the same weights in float, if it is."""
    known = _float_accuracy(record, leaf)
    if known is None or record.measurement is None or record.measurement.accuracy is None:
        return None
    (before, where), after = known, record.measurement.accuracy.value
    if before - after <= LOST:
        return None
    return Finding(
        code="collapse",
        text=f"Quantization spoils the answers: accuracy is {after:.3f}, and {before:.3f} for the same weights in "
        f"float ({where}).",
        advice=_advice(folder, record, leaf),
        numbers={"accuracy": after, "accuracy_float": before},
    )


def _float_accuracy(record: Record, leaf: Record | None) -> tuple[float, str] | None:
    """The accuracy of a record's weights in float, and where that was measured.

    It is that of the float leaf's file. Where this was screened, which spares its measurement, it is the last of the
    training's curve: of a float file with these weights and this image size on the main target, on the same images.
    """
    if leaf is not None and leaf.measurement is not None and leaf.measurement.accuracy is not None:
        return leaf.measurement.accuracy.value, f"record {leaf.id}"
    if record.curve and record.curve[-1][0] == total_epochs(record.recipe):
        return record.curve[-1][1], "when their training ended"
    return None


def _advice(folder: Path, record: Record, leaf: Record | None) -> str:
    """How to see which layers lose it, which takes ONNX files of both."""
    assert record.artifact is not None
    file = folder / record.artifact.path
    if record.artifact.format != "onnx":
        return "Try another precision of those that the target runs, or train with the rounding: `qat` in a recipe."
    command = f"python -m search int8 {file} --float"
    if leaf is not None and leaf.artifact is not None:
        return f"To see which layers lose it: `{command} {folder / leaf.artifact.path} --data data.yaml`."
    recipe = f"{file.parent / 'recipe.yaml'} with `quantize: {{kind: fp32}}`"
    return (
        f"To see which layers lose it, have `python -m search apply` make the float file of {recipe}, and then: "
        f"`{command} FLOAT.onnx --data data.yaml`."
    )
