"""Documents are written to be read in the repository; this makes up for what differs on the site.

The file that a link out of ``docs/`` leads to is put on the site, at its path in the repository. In the cells of a
table, GitHub needs ``\\|`` for a bar in code, and Python-Markdown shows the backslash.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
BETTER = {"docs/study.schema.json": "docs/reference/study.md"}  # pages of the site for files that say the same
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
ROW = re.compile(r"^\|.*\|$", re.M)
CODE = re.compile(r"`[^`\n]+`")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what documents link to outside of ``docs/``, and what that links to."""
    todo = [DOCS + file.src_uri for file in files.documentation_pages() if file.abs_src_path]
    while todo:
        page = todo.pop()
        for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            target = _target(link, page)
            if target.startswith(DOCS) or not (ROOT / target).is_file() or files.get_file_from_path(target):
                continue
            path = str(ROOT / target)
            files.append(File.generated(config, target, abs_src_path=path, inclusion=InclusionLevel.NOT_IN_NAV))
            if target.endswith(".md"):
                todo.append(target)
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links between the repository's folders as links between pages."""
    source = page.file.src_uri
    inside = (Path(config.docs_dir) / source).is_file()
    own = DOCS + source if inside else source
    folder = posixpath.dirname(source)

    def moved(link: re.Match[str]) -> str:
        target = _target(link[1], own)
        if inside and target.startswith(DOCS) and target not in BETTER:
            return link[1]
        target = BETTER.get(target, target)
        return posixpath.relpath(target.removeprefix(DOCS), folder or ".")

    return ROW.sub(lambda row: CODE.sub(lambda code: code[0].replace(r"\|", "|"), row[0]), LINK.sub(moved, markdown))


def _target(link: str, page: str) -> str:
    """The path in the repository that a link on a page leads to, both as paths from its root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
