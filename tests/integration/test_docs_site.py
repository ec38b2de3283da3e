"""The documentation site: built strictly, whole by itself, complete, and quiet in a real browser."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import BaseModel

from search.schema import SCHEMAS
from search.study import StudyConfig
from tests.browser import Opened, browser, until
from tests.unit.test_cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


class Html(HTMLParser):
    """What a page has: ids, links that people follow, what the browser fetches by itself, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.fetched = set[str](), list[str](), list[str]()
        self.words = list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        self.ids |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.append(has["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in has:
            self.fetched.append(has["src"])
        elif tag == "link" and has.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(has["href"])

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # Material's own notice, which is none about these pages
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    return {path: Html(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_link_and_anchor_leads_somewhere(site: Path, pages: dict[Path, Html]) -> None:
    broken, followed = list[str](), 0
    for page, html in pages.items():
        if page.name == "404.html":
            continue
        for link in [*html.links, *html.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            followed += 1
            if not target.is_file() or not target.is_relative_to(site.resolve()):
                broken.append(f"{page.relative_to(site)}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                broken.append(f"{page.relative_to(site)}: {link} has no such heading")
    assert broken == []
    assert followed > 1000


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Html]) -> None:
    assert [url for html in pages.values() for url in html.fetched if urlsplit(url).netloc] == []


def test_every_document_has_a_page_that_the_menu_leads_to(site: Path, pages: dict[Path, Html]) -> None:
    own = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert own <= set(pages[site / "index.html"].links) | {"index.html"}
    assert not list(site.rglob("hooks*"))


def test_links_out_of_the_documents_lead_to_pages_of_the_site(site: Path, pages: dict[Path, Html]) -> None:
    contributions = pages[site / "contributions.html"].links
    assert "results/bccd-front/report.html" in contributions
    assert "results/bccd-front/contributions.json" in contributions
    assert "../contributions.html#on-blood-cells" in pages[site / "results" / "index.html"].links
    assert "CONTRIBUTING.html#add-a-technique" in pages[site / "adding-a-technique.html"].links


def test_a_bar_in_a_cell_is_shown_without_its_backslash(site: Path, pages: dict[Path, Html]) -> None:
    assert r"model\.(0|1|2)\." in pages[site / "catalogue.html"].text
    assert "[--with-data | --data PATH]" in pages[site / "cluster.html"].text


def sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The models that a model's JSON schema refers to, by name, with itself."""
    found = {cls.__name__: cls for cls in _subclasses(BaseModel)}
    return {name: found[name] for name in [*model.model_json_schema()["$defs"], model.__name__]}


def _subclasses(cls: type[Any]) -> list[type[Any]]:
    return [sub for own in cls.__subclasses__() for sub in (own, *_subclasses(own))]


def test_the_reference_has_every_key_with_its_meaning_and_bounds(site: Path, pages: dict[Path, Html]) -> None:
    text = pages[site / "reference" / "study.html"].text
    for model in sections(StudyConfig).values():
        for name, field in model.model_fields.items():
            meaning = " ".join((field.description or "").replace("`", "").split())
            assert name in text and meaning[:40] in text, (model.__name__, name)
    assert "max_accuracy_drop number, at least 0, at most 1 or null null Accuracy that may be lost" in text
    assert "image_size whole number, at least 32, at most 4096, a multiple of 32 needed The side" in text


def test_the_reference_has_every_part_and_every_command(site: Path, pages: dict[Path, Html]) -> None:
    space = pages[site / "reference" / "space.html"]
    assert {name.lower() for name in SCHEMAS["space"]()["$defs"]} <= space.ids
    commands = pages[site / "reference" / "search.html"]
    assert {f"python--m-search-{name}" for name in COMMANDS} <= commands.ids
    assert "a folder with train/<class>/ and val/<class>/, to measure accuracy too" in commands.text


def test_the_reference_of_python_comes_from_docstrings(site: Path, pages: dict[Path, Html]) -> None:
    html = pages[site / "reference" / "python" / "the-front.html"]
    assert {"search.front.pick", "search.front.hypervolume"} <= html.ids
    assert "the largest accuracy drop recommended accepts; 0.01 is one point of mAP" in html.text
    assert "search.front._area" not in html.ids


@pytest.fixture(scope="module")
def address(site: Path) -> Generator[str]:
    """The site on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("colours", "scheme"), [("light", "default"), ("dark", "slate")])
def test_the_front_page_and_the_search_work_without_a_network(address: str, colours: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make setup")
    with browser() as running:
        context = running.new_context(viewport={"width": 1200, "height": 900}, color_scheme=colours)
        opened = Opened(context.new_page())
        page = opened.page
        page.goto(address + "index.html")
        assert page.title() == "yolo-front"
        until(page, f"document.body.dataset.mdColorScheme === '{scheme}'")
        found = axe.Axe().run(page).response["violations"]
        assert [own for own in found if own["impact"] in ("serious", "critical")] == []
        page.click("input.md-search__input")
        page.keyboard.type("letterbox")  # filling in makes no key event, which the search waits for
        # The addresses of what is found have the word as far as it was typed.
        until(page, "document.querySelector('.md-search-result__link[href*=\"h=letterbox\"]') !== null", seconds=60)
        assert "measuring.html" in page.locator(".md-search-result__link").first.get_attribute("href")
        assert opened.errors == []
        assert [url for url in opened.requests if not url.startswith(address)] == []
