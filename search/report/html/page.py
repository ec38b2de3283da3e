"""``report.html``: template, style, script and data in one file, which asks nothing of any server.

Charts are drawn as SVG by the page's own script. plotly.js was measured and left out (docs/adr/012-html-report.md).
"""

from __future__ import annotations

import csv
import html
import json
from io import StringIO
from pathlib import Path
from typing import Any

from search.ablation import FILE as CONTRIBUTIONS
from search.contributions import Contributions, picked_members
from search.errors import UserError
from search.final import Finals
from search.report.html.data import report_data
from search.report.html.pictures import pictures
from search.report.html.targets import targets_data
from search.report.html.template import filled, source_hash, template
from search.report.markdown import measured_sentences, search_sentences
from search.report.plot import plot_front
from search.report.quantization import quantization_sentences
from search.report.sure import INTRODUCTION, sure_sentences
from search.results import summary
from search.store import Store, write_atomically
from search.study import StudyConfig
from search.timeline import growth
from spaces.describe import describe
from spaces.recipe import Recipe

SCRIPTS = (
    "charts.js",
    "common.js",
    "front.js",
    "study.js",
    "tables.js",
    "targets.js",
    "app.js",
)  # in the order in which they are run
POLICY = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; script-src {script}; style-src {style}"
)


def write_all(config: StudyConfig, store: Store, folder: Path, *, out: Path, images: bool = True) -> None:
    """Writes the page to ``out``, and ``front.csv``, ``front.json`` and ``front.svg`` beside it.

    Raises:
        UserError: the folder of ``out`` is missing, or the study has no baseline yet.
    """
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it first")
    result = summary(config, store, folder)
    write_html(config, store, result, folder, out=out, images=images)
    write_atomically(out.with_name("front.json"), json.dumps(result, indent=2) + "\n")
    finished = [record for record in Finals(folder).applied(store).searched if record.state == "complete"]
    plot_front(result, finished, out.with_name("front.svg"))


def write_html(
    config: StudyConfig, store: Store, result: dict[str, Any], folder: Path, *, out: Path, images: bool = True
) -> None:
    """Writes the page to ``out``, and ``front.csv`` beside it.

    Args:
        config: the study's.
        store: its records.
        result: of ``search.results.summary``.
        folder: of the study; nothing in it but the files that it lists is read.
        out: the HTML file.
        images: whether a few validation images are embedded, with the boxes that the picks find.
    """
    path = folder / CONTRIBUTIONS
    found = Contributions.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
    records = Finals(folder).applied(store)
    data = report_data(config, records, result, growth(config, store), found)
    data["targets"] = targets_data(result, store, folder)
    data["pictures"] = _pictures(result, folder) if images else {"why": "they were left out"}
    data["notes"] = {
        "sure": [INTRODUCTION, *sure_sentences(result)] if result["front"] else [],
        "quantization": quantization_sentences(config, store, result, folder),
        "search": search_sentences(store, folder),
        "measured": measured_sentences(config, result, store),
    }
    write_atomically(out, page(data))
    write_atomically(out.with_name("front.csv"), front_csv(result))


def page(data: dict[str, Any]) -> str:
    """The whole page as text. Only its own script and style, named by their hashes, may run in it."""
    script = "\n".join(template(name) for name in SCRIPTS)
    style = template("style.css")
    parts = {
        "title": html.escape(str(data["title"])),
        "policy": POLICY.format(script=source_hash(script), style=source_hash(style)),
        "style": style,
        "script": script,
        "data": embedded_json(data),
    }
    return filled(template("page.html"), parts)


def embedded_json(data: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element or begin a comment.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def front_csv(result: dict[str, Any]) -> str:
    """The baseline and the front, a line each; intervals take two columns, the recipe is in words."""
    rows = [_flat(member) for member in [*result["front"], result["baseline"]]]
    text = StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(member: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in member.items():
        if name.endswith("_ci"):
            row[f"{name}_low"], row[f"{name}_high"] = value or (None, None)
        elif name in {"ties", "rivals"}:
            row[name] = " ".join(value)
        elif name == "test":
            row |= {f"test_{key}": number for key, number in (value or {}).items() if key != "split"}
        elif name != "recipe":
            row[name] = value
    return {**row, "recipe": describe(Recipe.model_validate(member["recipe"]))}


def _pictures(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The boxes of the baseline and of the picks, the recommended one first; one with several names is there once."""
    files = {member["record_id"]: member["artifact"] for member in result["front"]}
    picks = {", ".join(names): files[record_id] for record_id, names in picked_members(result).items()}
    return pictures(folder, {"the baseline": result["baseline"]["artifact"], **picks})
