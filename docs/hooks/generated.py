"""Makes the pages of the reference from the code whenever the site is built, so that they cannot differ from it."""

from __future__ import annotations

import re

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from schema_page import schema_page
from typer.cli import get_docs_for_click

from cluster.__main__ import app as cluster
from search.__main__ import app as search
from search.schema import study_schema
from spaces.json_schema import Untitled
from spaces.recipe import Recipe

# Modules that others may build on, by page: what a script or a new technique needs.
PUBLIC = {
    "Studies": ["search.study", "search.target", "search.driver", "search.store", "search.record", "search.results"],
    "The front": ["search.front", "search.noise", "search.check"],
    "Recipes and spaces": ["spaces.recipe", "spaces.space", "spaces.domain", "spaces.parse", "spaces.sense"],
    "Parts of a recipe": [
        f"spaces.parts.{name}"
        for name in ("structure", "prune", "sparsify", "finetune", "distill", "qat", "quantize", "export")
    ],
    "Measuring": [
        "search.measure.file",
        "search.measure.latency",
        "search.measure.accuracy",
        "search.runtimes.session",
    ],
    "Clusters": ["cluster.inputs", "cluster.submit", "cluster.jobs", "cluster.fetch"],
}
IN_A_SPACE = """\
A recipe has one value of each field. A space may have a list of values or a range in its place, and a list of parts;
what it leaves out keeps the default, and `image_size` is the study's ([how](../spaces.md)).
"""
MARKUP = re.compile(r"<(?=[^`]*(?:`[^`]*`[^`]*)*$)")  # outside of code, which ends in the line where it begins


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages below ``reference/``."""
    recipe = Recipe.model_json_schema(schema_generator=Untitled)
    pages = {
        "study": schema_page("The study file", study_schema(), "study"),
        "space": schema_page("The space file", recipe, "space", IN_A_SPACE),
        "search": _commands(search, "python -m search"),
        "cluster": _commands(cluster, "python -m cluster"),
        **{f"python/{title.lower().replace(' ', '-')}": _modules(title, names) for title, names in PUBLIC.items()},
    }
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def _commands(app: typer.Typer, name: str) -> str:
    """Every command of a program with its options, as its ``--help`` has them."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name=name)
    return "\n".join(line if line.startswith("$") else MARKUP.sub("&lt;", line) for line in text.splitlines())


def _modules(title: str, names: list[str]) -> str:
    """A page that mkdocstrings fills from the docstrings of modules."""
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)]) + "\n"
