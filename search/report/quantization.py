"""What the int8 doctor has to say about a study: findings of the front's members, and collapses anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.quantcheck.member import collapsed, findings_of_member
from search.store import Store
from search.study import StudyConfig


def quantization_section(config: StudyConfig, store: Store, result: dict[str, Any], folder: Path) -> str:
    """A section of ``report.md``; empty if nothing is wrong."""
    lines = [f"- {sentence}" for sentence in quantization_sentences(config, store, result, folder)]
    return "## Quantization\n\n" + "\n".join(lines) if lines else ""


def quantization_sentences(config: StudyConfig, store: Store, result: dict[str, Any], folder: Path) -> list[str]:
    """A sentence for each finding, which begins with the record's id."""
    records, front = list(store.records.values()), [member["record_id"] for member in result["front"]]
    lines = [
        f"{name}: {finding.sentence()}"
        for name in front
        for finding in findings_of_member(folder, store.records[name], records, config.target)
    ]
    lines += [
        f"{record.id}: {finding.sentence()}"
        for record in store.searched
        if record.id not in front and (finding := collapsed(folder, record, records))
    ]
    return lines
