"""What the documents show must work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.study import FinalSettings, StudyConfig
from search.target import Target
from spaces.parse import parse_space

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def indented_block(document: str, first_words: str) -> Any:
    """The YAML of the indented block that starts with these words."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.search(rf"^    {re.escape(first_words)}.*(?:\n    .*)*", text, re.M)
    assert found, f"{document} has no block that starts with {first_words!r}"
    return yaml.safe_load(re.sub(r"^    ", "", found[0], flags=re.M))


def test_the_study_in_the_readme_is_accepted() -> None:
    config = StudyConfig.model_validate(indented_block("README.md", "# study.yaml"))
    assert config.load_space().name == "detect-cpu"


def test_the_space_in_its_document_is_accepted() -> None:
    space = parse_space(indented_block("docs/spaces.md", "image_size: {scale"), name="doc", image_size=320)
    assert len(space.leaves(space.nearest({}))) == 3


def test_the_target_in_its_document_is_what_it_is_by_default() -> None:
    assert Target.model_validate(indented_block("docs/measuring.md", "target:")["target"]) == Target()


def test_the_final_measurement_in_its_document_is_what_it_is_by_default() -> None:
    assert FinalSettings.model_validate(indented_block("docs/measuring.md", "final:")["final"]) == FinalSettings()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def test_the_commit_that_shows_how_to_add_a_technique_is_in_the_code() -> None:
    text = (ROOT / "docs" / "adding-a-technique.md").read_text(encoding="utf-8")
    [diff] = re.findall(r"```diff\n(.*?)\n```", text, re.S)
    files = re.split(r"^diff --git a/(\S+) b/\S+\n", diff, flags=re.M)[1:]
    assert len(files) >= 2 * 5  # a type or value, a function, a name, a test and a document
    for name, change in zip(files[::2], files[1::2], strict=True):
        content = (ROOT / name).read_text(encoding="utf-8").split("\n")
        added = re.findall(r"^\+(?!\+\+ )(.*)$", change, re.M)
        assert added and not [line for line in added if line not in content], name
