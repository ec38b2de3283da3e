"""The HTML report of a study of several targets, in a real headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.report.html.page import write_all
from search.results import open_study
from spaces.recipe import Recipe
from tests.browser import Opened, browser, until
from tests.drawn import STUDY, nearest_gaps
from tests.elsewhere import ACCURACY, BOARD, IDS, LATENCY, MAIN, PHONE, three_targets

SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a folder: the section's picture for the docs is written there
MEMBERS = {MAIN: ("small", "middle", "large"), PHONE: ("small", "large"), BOARD: ()}


@pytest.fixture(scope="module")
def chromium() -> Generator[Any]:
    with browser() as running:
        yield running


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Generator[Opened]:
    """The report, open; nothing may be said on the console or asked of a network."""
    config, store = three_targets(tmp_path)
    write_all(config, store, tmp_path, out=tmp_path / "report.html", images=False)
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    found = Opened(context.new_page())
    found.go(tmp_path / "report.html")
    yield found
    assert (found.errors, found.requests) == ([], [])
    context.close()


def drawn(page: Any, target: str) -> np.ndarray:
    """The members of a target's front as a reader of the drawn axes would read them: (n, 2)."""
    ticks = """axis => [...document.querySelectorAll(`#targets-chart .tick-${axis}`)].map(
        tick => [Number(tick.getAttribute(axis)), Number(tick.textContent)])"""
    across, up = (np.polyfit(*zip(*page.evaluate(ticks, axis), strict=True), deg=1) for axis in "xy")
    places = page.eval_on_selector_all(
        f"#targets-chart [data-target='{target}'] .member",
        "all => all.map(one => one.transform.baseVal[0].matrix).map(own => [own.e, own.f])",
    )
    placed = np.array(places).reshape(-1, 2)
    return np.column_stack([np.polyval(across, placed[:, 0]), np.polyval(up, placed[:, 1])])


def test_each_front_is_drawn_by_its_targets_own_figures(opened: Opened) -> None:
    for target, names in MEMBERS.items():
        points = drawn(opened.page, target)
        assert len(points) == len(names)
        if names:
            true = np.array([(LATENCY[target][name], ACCURACY[name]) for name in names])
            assert (nearest_gaps(points, true) < [0.002, 0.002]).all()


def test_filters_hold_for_all_fronts(opened: Opened) -> None:
    page = opened.page
    page.fill("input[name=drop]", "2")  # the small one lacks ten points
    until(page, f"document.querySelectorAll(\"#targets-chart [data-target='{PHONE}'] .member\").length === 1")
    assert drawn(page, MAIN).shape == (2, 2)


def test_milliseconds_of_several_pictures_say_so(opened: Opened) -> None:
    page, legend = opened.page, "#targets-chart .target text"
    assert page.locator(legend).all_text_contents() == [MAIN, PHONE, BOARD]
    page.select_option("select[name=across]", "ms")
    until(page, "document.querySelector('#targets-chart svg').getAttribute('aria-label').includes('ms, median')")
    assert page.locator(legend).all_text_contents() == [MAIN, f"{PHONE}, 2 pictures at once", BOARD]


def test_a_click_on_a_mark_and_a_tables_button_copy_the_recipe(opened: Opened) -> None:
    page = opened.page
    mark = page.locator(f"#targets-chart [data-target='{PHONE}'] .member").last
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert all(word in page.locator("#tip").inner_text() for word in (IDS["large"], "×0.300", f"on {PHONE}"))
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(page, "document.getElementById('live').textContent.endsWith('copied')")
    assert Recipe.from_yaml(page.evaluate("navigator.clipboard.readText()")).id == IDS["large"]
    page.locator("#other-fronts button").first.focus()
    page.keyboard.press("Enter")
    until(page, f"document.getElementById('live').textContent.includes('{IDS['small']}')")
    until(page, "document.getElementById('live').textContent.endsWith('copied')")
    assert Recipe.from_yaml(page.evaluate("navigator.clipboard.readText()")).id == IDS["small"]


def test_the_section_says_in_words_what_it_draws(opened: Opened) -> None:
    section = opened.page.locator("#targets")
    text = section.inner_text()
    assert f"The search was for {MAIN}." in text
    assert f"The front on {PHONE} and the baseline there; hypervolume 0.4380; not measured again" in text
    assert "No record is complete there and within the constraints." in text
    assert opened.page.locator("#agreement tbody tr").count() == 3
    assert "On other targets" in opened.page.locator("#contents").inner_text()


def test_axe_finds_nothing(opened: Opened) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make setup")
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        result = axe.Axe().run(opened.page)
        assert result.violations_count == 0, result.generate_report()


def test_a_study_of_one_target_has_no_such_section(chromium: Any, tmp_path: Path) -> None:
    shutil.copytree(STUDY, tmp_path / "study")
    config, store = open_study(tmp_path / "study")
    write_all(config, store, tmp_path / "study", out=tmp_path / "report.html", images=False)
    context = chromium.new_context()
    page = Opened(context.new_page()).go(tmp_path / "report.html")
    assert page.locator("#targets").is_hidden()
    assert "On other targets" not in page.locator("#contents").inner_text()
    context.close()


@pytest.mark.skipif(not SCREENSHOTS, reason="SCREENSHOTS=docs/images makes the pictures of the docs")
def test_screenshot_for_the_docs(chromium: Any, tmp_path: Path) -> None:
    shutil.copytree(STUDY.with_name("bccd-everywhere"), tmp_path / "study")
    config, store = open_study(tmp_path / "study")
    write_all(config, store, tmp_path / "study", out=tmp_path / "report.html", images=False)
    context = chromium.new_context(viewport={"width": 1120, "height": 860}, color_scheme="light")
    page = Opened(context.new_page()).go(tmp_path / "report.html")
    page.evaluate("document.querySelector('nav').style.display = 'none'")  # it would stay above the section
    page.locator("#targets-chart").screenshot(path=Path(str(SCREENSHOTS)) / "report-targets.png")
    context.close()
