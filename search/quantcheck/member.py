"""What is wrong with a quantized record of a study, without running its data: from its file and from its records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from search.quantcheck.collapse import LOST
from search.quantcheck.device import host_findings, latency_findings, ratio_of
from search.quantcheck.finding import Finding
from search.quantcheck.fused import look, unfused_findings
from search.quantcheck.size import size_findings
from search.record import Record
from search.store import Store


def findings_of_member(folder: Path, record: Record, records: Sequence[Record] | None = None) -> list[Finding]:
    """What is wrong with the file of a finished record, and with its accuracy beside the float leaf of its trunk.

    Takes a fraction of a second.

    Args:
        folder: of the study.
        record: one of its records.
        records: all of them, if they have been read already.
    """
    if record.recipe.quantize.kind == "fp32" or record.state != "complete" or record.artifact is None:
        return []
    leaf = float_leaf(record, list(Store(folder).records.values()) if records is None else records)
    return [*_of_file(folder, record, leaf), *_of_numbers(folder, record, leaf)]


def collapsed(folder: Path, record: Record, records: Sequence[Record]) -> Finding | None:
    """The finding that a record lost its accuracy in quantization, if it did; from numbers alone."""
    found = _of_numbers(folder, record, float_leaf(record, records)) if record.state == "complete" else []
    return next((finding for finding in found if finding.code == "collapse"), None)


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


def _of_file(folder: Path, record: Record, leaf: Record | None) -> list[Finding]:
    assert record.artifact is not None
    path = folder / record.artifact.path
    if not path.is_file():  # a study whose files were moved away still has its report
        return []
    seen, host = look(path), folder / "host.json"
    known = json.loads(host.read_text(encoding="utf-8")).get("instruction_sets", ()) if host.is_file() else ()
    float_file = folder / leaf.artifact.path if leaf and leaf.artifact else None
    return [
        *unfused_findings(seen),
        *host_findings(known, integer_layers=len(seen.integer)),
        *size_findings(path, float_file if float_file and float_file.is_file() else None),
    ]


def _of_numbers(folder: Path, record: Record, leaf: Record | None) -> list[Finding]:
    """Accuracy lost, and latency gained the wrong way, against the float leaf."""
    if leaf is None or leaf.artifact is None or record.artifact is None:
        return []
    mine, floats = record.measurement, leaf.measurement
    if mine is None or mine.accuracy is None or floats is None or floats.accuracy is None:
        return []
    found = latency_findings(*ratio_of(mine.latency, floats.latency)) if mine.host == floats.host else []
    lost = floats.accuracy.value - mine.accuracy.value
    if lost > LOST:
        command = f"python -m search int8 {folder / record.artifact.path} --float {folder / leaf.artifact.path}"
        finding = Finding(
            code="collapse",
            text=f"Quantization spoils the answers: accuracy is {mine.accuracy.value:.3f}, and "
            f"{floats.accuracy.value:.3f} for the same weights in float (record {leaf.id}).",
            advice=f"To see which layers lose it: `{command} --data data.yaml`.",
            numbers={"accuracy": mine.accuracy.value, "accuracy_float": floats.accuracy.value},
        )
        found.append(finding)
    return found
