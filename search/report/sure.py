"""How sure the front is: what could not be told apart, and what was measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.final import Finals
from search.report.finals import again_text
from search.report.tables import how_sure
from search.store import Records

SHOWN = 4  # records that are named in a sentence


def sure_section(result: dict[str, Any], store: Records, folder: Path) -> str:
    """The section of the report; empty for an empty front."""
    if not result["front"]:
        return ""
    lines = "\n".join(f"- {sentence}" for sentence in sure_sentences(result))
    again = again_text(result, store, Finals(folder))
    return "\n\n".join(filter(None, ["## How sure the front is", INTRODUCTION, lines, again]))


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


def _names(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
