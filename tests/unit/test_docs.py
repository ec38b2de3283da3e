"""What the documents show must work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.study import FinalSettings, StudyConfig
from search.target import Target, load_target, target_names
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


def test_the_targets_in_their_document_are_accepted() -> None:
    study = indented_block("docs/targets.md", "target: openvino-cpu")
    content = {"name": "s", "model": "a.pt", "data": "d.yaml", "image_size": 64}
    names = [target.name for target in StudyConfig.model_validate(content | study).targets]
    assert names == ["openvino-cpu", "onnxruntime-cpu", "ncnn-cpu"]
    own = Target.model_validate({"name": "board"} | indented_block("docs/targets.md", "# board.yaml"))
    assert own.runs_kind("low_bit", 4) and not own.runs_kind("low_bit", 2)


def test_the_table_of_targets_has_them_all() -> None:
    text = (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")
    rows = {name: cells.split("|") for name, cells in re.findall(r"^\| `([\w-]+)` \|(.*)\|$", text, re.M)}
    assert set(rows) == set(target_names())
    for name, (_, precisions, _) in rows.items():
        target = load_target(name)
        kinds = {kind.partition("-")[0] for kind in target.precisions} or {"all"}
        assert kinds == {words.split()[0] for words in precisions.replace("8 and 4", "8").split(",")}, name


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
