"""The page of ``watch`` as one text: the template, style and chart scripts of the report, and a script of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from search.report.html.template import filled, source_hash, template

TEMPLATES = Path(__file__).resolve().parent / "html"
SHARED = ("charts.js", "common.js", "front.js", "study.js")  # of the report


def _own(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _script() -> str:
    return "\n".join([*(template(name) for name in SHARED), _own("watch.js")])


def _style() -> str:
    return template("style.css") + _own("watch.css")


@cache
def watch_page() -> str:
    """The whole page; what it shows it asks for."""
    return filled(_own("watch.html"), {"style": _style(), "script": _script()})


# Only its own script and style run, and it asks nobody but its own server.
POLICY_HEADER = (
    "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    f"frame-ancestors 'none'; script-src {source_hash(_script())}; style-src {source_hash(_style())}"
)
