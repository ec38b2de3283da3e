"""Makes the pages of the reference from the code whenever the site is built, so that they cannot differ from it."""

from __future__ import annotations

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from schema_page import schema_page
from typer.cli import get_docs_for_click

from cluster.__main__ import app as cluster
from search.__main__ import app as search
from search.schema import space_schema, study_schema

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


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages below ``reference/``."""
    pages = {
        "study": schema_page("The study file", study_schema(), "study"),
        "space": schema_page("The space file", space_schema(), "space"),
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
    return text.replace(f"# `{name}`", f"# {name}", 1)


def _modules(title: str, names: list[str]) -> str:
    """A page that mkdocstrings fills from the docstrings of modules."""
    return "\n\n".join([f"# {title}", *(f"::: {name}" for name in names)]) + "\n"
