"""The section of a report that says what each part of a picked recipe brings, and what simple rivals reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.contributions import Contributions, Picked, Row, Values, values_of
from search.record import Record
from search.report.tables import markdown_table

EMPTY = "–"
INTRODUCTION = """## What each part brings

Each picked recipe again, with one part switched off and all else as it was, through the same pipeline and timed in the
same way. *Brings* sets the pick against that row: accuracy as a difference, latency and size as factors (×0.5: the part
halves it). The factor of latency is of timings right after one another, so it need not be the quotient of the columns.
Each row is one training, so small differences in accuracy may be luck. Training moves no latency: what "all training"
brings there says how far two timings differ."""
RIVALS = """### Simple rivals

What takes no search, from the model as it came. A pick beats a rival if it is no worse in any objective and better in
one, both beyond the noise, and their latencies are of one host."""


def contributions_section(folder: Path) -> str:
    """The section for the study in ``folder``; empty if nothing of the kind was measured."""
    from search.ablation import FILE

    path = folder / FILE
    if not path.is_file():
        return ""
    return contributions_text(Contributions.model_validate_json(path.read_text(encoding="utf-8")))


def contributions_text(found: Contributions) -> str:
    """The section as Markdown."""
    return "\n\n".join([INTRODUCTION, *(_pick(pick, found.metric) for pick in found.picks), RIVALS, _rivals(found)])


def row_line(name: str, record: Record | None) -> str:
    """One line for a terminal when a row was looked at."""
    if record is None:
        return f"{name}: not trained"
    if record.state != "complete":
        return f"{name}: failed: {_one_line(record.reason)}"
    values = values_of(record)
    return f"{name}: accuracy {values.accuracy:.3f}, latency ×{values.latency_ratio:.3f}, size ×{values.size_ratio:.3f}"


def _pick(pick: Picked, metric: str) -> str:
    header = ("switched off", metric, "latency", "interval", "size", "epochs")
    header += (f"brings {metric}", "brings latency", "interval", "brings size", "recipe")
    first = ("nothing", *_values(pick.values), str(pick.epochs), *4 * ("",), pick.recipe)
    table = markdown_table(header, [first, *(_part(row) for row in pick.parts)])
    missing = [row.name for row in pick.parts if row.state == "missing"]
    text = f"### {', '.join(pick.picks)}: {pick.record_id}\n\n{table}"
    doubts = [("nothing", pick.values.doubts)]
    doubts += [(row.name, (*_doubts(row), *(row.brought.doubts if row.brought else ()))) for row in pick.parts]
    text += _doubted(doubts)
    if missing:
        command = f"python -m search contributions DIR --pick {pick.picks[0]}"
        text += f"\n\nNot trained: {', '.join(missing)}. `{command}` trains and measures them, DIR being this folder."
    return text


def _part(row: Row) -> tuple[str, ...]:
    if row.values is None or row.brought is None:
        told = "not trained" if row.state == "missing" else _one_line(f"failed: {row.reason}")
        return (row.name, told, *3 * (EMPTY,), str(row.epochs), *4 * (EMPTY,), row.recipe)
    gain = row.brought
    latency = f"×{gain.latency:.3f}" if gain.latency is not None else "not timed together"
    interval = _interval(gain.latency_ci) if gain.latency_ci is not None else EMPTY
    brings = (f"{gain.accuracy:+.3f}", latency, interval, f"×{gain.size:.3f}")
    return (row.name, *_values(row.values), str(row.epochs), *brings, row.recipe)


def _rivals(found: Contributions) -> str:
    baseline = ("the baseline", *_values(found.baseline), "")
    rows = [
        (row.name, *_values(row.values), ", ".join(row.beaten_by) or EMPTY)
        if row.values is not None
        else (row.name, *4 * (EMPTY,), _one_line(row.reason))
        for row in found.rivals
    ]
    table = markdown_table(("rival", found.metric, "latency", "interval", "size", "beaten by"), [baseline, *rows])
    return table + _doubted([(row.name, _doubts(row)) for row in found.rivals])


def _doubts(row: Row) -> tuple[str, ...]:
    return row.values.doubts if row.values else ()


def _doubted(doubts: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    """A list, to be put below a table: rows and the sentences on why their latency should be taken again."""
    lines = [f"- To be doubted: {name}: {doubt}." for name, own in doubts for doubt in dict.fromkeys(own)]
    return "\n\n" + "\n".join(lines) if lines else ""


def _values(values: Values) -> tuple[str, str, str, str]:
    return (
        f"{values.accuracy:.3f}",
        f"×{values.latency_ratio:.3f}",
        _interval(values.latency_ratio_ci),
        f"×{values.size_ratio:.3f}",
    )


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.3f}–{bounds[1]:.3f}"


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
