"""How sure the front is: what could not be told apart, and what the front looked like before it was measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.final import Finals
from search.record import Record
from search.report.doubts import doubt_sentences
from search.report.tables import how_sure
from search.store import Store

SHOWN = 4  # records that are named in a sentence


def sure_section(result: dict[str, Any], store: Store, folder: Path) -> str:
    """The section of the report; empty for an empty front."""
    if not result["front"]:
        return ""
    lines = [f"- {sentence}" for sentence in sure_sentences(result)]
    return "\n".join(["## How sure the front is", "", INTRODUCTION, "", *lines, *_again(result, store, folder)])


def sure_sentences(result: dict[str, Any]) -> list[str]:
    """Which members are sure, and what the others cannot be told apart from."""
    sure = [member["record_id"] for member in result["front"] if how_sure(member) == "yes"]
    lines = [f"Sure: {', '.join(sure)}."] if sure else []
    lines += [sentence for member in result["front"] for sentence in _sentences(member)]
    if result["undecided"]:
        lines.append(f"Off the front, but not surely dominated by a member: {len(result['undecided'])} records.")
    return lines


INTRODUCTION = (
    "Intervals are of 95 %: of accuracy for other images of the same kind, of a drop on the same images. "
    "They do not know how another training of the same recipe would end. "
    "A member is sure if every other record is surely worse in some objective; "
    "a tie is told apart from another record in none."
)


_AGAIN = "Measured again, since the best of many noisy measurements flatters; these figures replace the search's:"


def _sentences(member: dict[str, Any]) -> list[str]:
    found: list[str] = []
    if member["ties"]:
        found.append(f"{member['record_id']} cannot be told apart from {_names(member['ties'])}.")
    if member["rivals"]:
        found.append(
            f"{member['record_id']} may be dominated by {_names(member['rivals'])}: surely better in one objective, "
            "not told apart in the rest."
        )
    return found


def _again(result: dict[str, Any], store: Store, folder: Path) -> list[str]:
    """Ratios of the search beside those that replaced them, and what went wrong with some."""
    finals = Finals(folder)
    front = {member["record_id"] for member in result["front"]}
    rows, again = list[str](), list[Record]()
    for record in finals.applied(store).searched:
        searched, measured = store.records[record.id].measurement, record.measurement
        if measured is None or searched is None or measured.latency == searched.latency:
            continue
        latency = measured.latency
        rows.append(
            f"| {record.id} | ×{searched.latency.ratio:.3f} | ×{latency.ratio:.3f} "
            f"| {latency.ratio_low:.3f}–{latency.ratio_high:.3f} "
            f"| {finals.timed[record.id]} | {'yes' if record.id in front else 'no'} |"
        )
        again.append(record)
    troubles = [f"- Still to be doubted: {sentence}" for sentence in doubt_sentences(again)]
    troubles += [f"- {name} could not be measured again: {reason}" for name, reason in finals.failures().items()]
    table = [_AGAIN, "", "| record | search | again | interval | times | front |", "| --- " * 6 + "|", *rows]
    return [*(["", *table] if rows else []), *(["", *troubles] if troubles else [])]


def _names(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
