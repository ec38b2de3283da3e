"""What was measured after the search, on any target: ratios that replaced those of the search, and the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search.final import Final, Finals
from search.record import Record
from search.report.doubts import doubt_sentences
from search.report.tables import markdown_table, plus_minus
from search.store import Records
from search.tasks.accuracy import value_of

AGAIN = "Measured again, since the best of many noisy measurements flatters; these figures replace the search's:"
TIMED = ("record", "search", "again", "interval", "times", "front")
TESTED = ("record", "val", "test")


def final_line(final: Final) -> str:
    """One line for a terminal when something was measured after the search."""
    if final.latency is not None:
        told = f"latency ×{final.latency.ratio:.3f}"
    elif final.accuracy is not None:
        told = f"{final.accuracy.metric} {final.accuracy.value:.3f} on {final.accuracy.split}"
    else:
        told = f"not measured: {' '.join(final.reason.split())}"
    return f"{final.record_id}{f' on {final.target}' if final.target else ''}: {told}"


def again_text(result: Mapping[str, Any], records: Records, finals: Finals) -> str:
    """Ratios of the search beside those that replaced them, and what went wrong with some; empty without any.

    Args:
        result: what was found on the target.
        records: what the search saw there.
        finals: what was measured there after it.
    """
    front = {member["record_id"] for member in result["front"]}
    again = measured_again(records, finals)
    rows = list[tuple[str, ...]]()
    for record in again:
        searched, measured = records.records[record.id].measurement, record.measurement
        assert searched and measured
        latency = measured.latency
        rows.append(
            (
                record.id,
                f"×{searched.latency.ratio:.3f}",
                f"×{latency.ratio:.3f}",
                f"{latency.ratio_low:.3f}–{latency.ratio_high:.3f}",
                str(finals.timed[record.id]),
                "yes" if record.id in front else "no",
            )
        )
    table = f"{AGAIN}\n\n{markdown_table(TIMED, rows)}" if rows else ""
    return "\n\n".join(filter(None, [table, _listed(troubles(again, finals))]))


def measured_again(records: Records, finals: Finals) -> list[Record]:
    """The records whose latency after the search replaced that of the search, with it in place."""
    return [
        record
        for record in finals.applied(records).searched
        for searched in [records.records[record.id].measurement]
        if record.measurement and searched and record.measurement.latency != searched.latency
    ]


def troubles(again: Sequence[Record], finals: Finals) -> list[str]:
    """What is to be doubted of ``again``, which was measured after the search, and what could not be."""
    doubted = [f"Still to be doubted: {sentence}" for sentence in doubt_sentences(again)]
    return doubted + _failures(finals.failures(), "could not be measured again")


def tested_text(result: Mapping[str, Any], finals: Finals) -> str:
    """Accuracies on the test split beside those on the validation split, and why some are missing; empty without any.

    Arguments are those of ``again_text``.
    """
    members = [m for m in [*result["front"], result["baseline"]] if m["test"]]
    rows = [(m["record_id"], f"{m['accuracy']:.3f}", _test_cell(m["test"])) for m in members]
    table = f"Measured once, at the end.\n\n{markdown_table(TESTED, rows)}" if rows else ""
    failed = _failures(finals.failures("test"), "could not be measured on the test split")
    return "\n\n".join(filter(None, [table, _listed(failed)]))


def _test_cell(test: dict[str, Any]) -> str:
    bounds = None if test.get("low") is None else [test["low"], test["high"]]
    return f"{value_of(test):.3f}{plus_minus(bounds)}"


def _failures(reasons: Mapping[str, str], what: str) -> list[str]:
    """Their reasons in one line each; pip's have several."""
    return [f"{name} {what}: {' '.join(reason.split())}" for name, reason in reasons.items()]


def _listed(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
