"""The JSON schemas say what the readers accept: real files pass, mistakes do not, and both agree on changed ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from search.__main__ import app
from search.errors import UserError
from search.schema import SCHEMAS, schema_text
from search.study import StudyConfig, parse_study
from spaces.combine import recipe_of
from spaces.parse import parse_space, preset_names
from spaces.space import SpaceError
from spaces.techniques import TECHNIQUES, Setting
from tests.unit.test_docs import indented_block

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "spaces" / "presets"
STUDY, SPACE = (Draft202012Validator(SCHEMAS[name]()) for name in ("study", "space"))
GOOD = {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": 640}
TARGET_FILE = str(ROOT / "search" / "targets" / "ncnn-cpu.yaml")


def test_the_committed_schema_is_that_of_the_code() -> None:
    committed = (ROOT / "docs" / "study.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text("study"), "python -m search schema --out docs/study.schema.json"


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(schema_text(name)))


def test_the_command_prints_or_writes_it(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["schema"]).output == schema_text("study")
    done = CliRunner().invoke(app, ["schema", "--of", "space", "--out", str(tmp_path / "s.json")])
    assert (done.output, (tmp_path / "s.json").read_text(encoding="utf-8")) == ("", schema_text("space"))


def test_every_key_of_a_study_says_what_it_is() -> None:
    schema = SCHEMAS["study"]()
    sections = {"study": schema, **schema["$defs"]}
    sections["Target"] = sections["Target"]["anyOf"][1]  # a name, or a mapping
    silent = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, own in section["properties"].items()
        if not own.get("description")
    ]
    assert silent == []


@pytest.mark.parametrize("file", sorted(ROOT.glob("results/*/study.yaml")), ids=lambda file: file.parent.name)
def test_studies_that_ran_are_valid(file: Path) -> None:
    STUDY.validate(yaml.safe_load(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("document", "first_words"),
    [("README.md", "# study.yaml"), ("docs/tutorial.md", "# yaml-language-server: $schema=docs/study.schema.json")],
)
def test_studies_in_the_documents_are_valid(document: str, first_words: str) -> None:
    STUDY.validate(indented_block(document, first_words))


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_spaces(name: str) -> None:
    SPACE.validate(yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")))


def test_the_recipe_of_every_technique_is_a_valid_space() -> None:
    setting = Setting(image_size=320, images="/data/pictures", teacher="/models/larger.pt")
    for name in TECHNIQUES:
        SPACE.validate(recipe_of([name], setting).model_dump(mode="json"))


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "blue"},
        {"budget": {"trails": 3}},
        {"rungs": {"bas": 3}},
        {"name": "a/b"},
        {"image_size": 100},
        {"image_size": "large"},
        {"budget": {"trials": 0}},
        {"budget": 5},
        {"objectives": ["accuracy"]},
        {"objectives": ["latency", "size"]},
        {"objectives": ["accuracy", "accuracy"]},
        {"objectives": ["accuracy", "speed"]},
        {"target": {"threads": 0}},
        {"target": {"batch": 0}},
        {"target": {"batch": 257}},
        {"target": "onnxruntime"},
        {"target": {"runtime": "tea"}},
        {"target": {"name": "tea"}},
        {"other_targets": ["ncnn"]},
        {"constraints": {"max_accuracy_drop": 1.5}},
        {"resources": {"cpus_per_trial": 1.5}},
        {"sampler": "grid"},
        {"model": "model.onnx"},
        {"space": "detect"},
        {"train_settings": {"mosaic": [1]}},
    ],
    ids=str,
)
def test_mistakes_are_found_where_the_study_is_refused(change: dict[str, Any]) -> None:
    assert STUDY.is_valid(GOOD)
    assert accepts(GOOD)
    assert not STUDY.is_valid({**GOOD, **change})
    assert not accepts({**GOOD, **change})


def test_a_missing_key_is_found() -> None:
    for key in GOOD:
        assert not STUDY.is_valid({own: value for own, value in GOOD.items() if own != key})


def test_an_unknown_key_of_a_section_that_may_be_null_or_in_a_list_is_the_users_error() -> None:
    for change, message in (
        ({"rungs": {"bas": 3}}, "unknown key rungs.bas; allowed are base, eta, keep"),
        ({"budget": {"stall": {"grow": 1}}}, "unknown key budget.stall.grow; allowed are growth, trials"),
        ({"other_targets": [{"thread": 3}]}, "unknown key other_targets.0.thread; allowed are name, about"),
    ):
        with pytest.raises(UserError, match=message):
            parse_study({**GOOD, **change}, where="study.yaml")


@pytest.mark.parametrize(
    "space",
    [
        {"colour": "blue"},
        {"activation": "tea"},
        {"activation": []},
        {"image_size": {"scale": [0]}},
        {"prune": {"ratio": 0.5}},
        {"prune": {"kind": "tea"}},
        {"prune": {"kind": "channels"}},
        {"prune": {"kind": "channels", "ratio": 1.5}},
        {"prune": {"kind": "channels", "ratio": [0.5, 2]}},
        {"prune": {"kind": "channels", "ratio": {"low": 0.1, "high": 2}}},
        {"prune": {"kind": "channels", "ratio": {"low": 0.1}}},
        {"prune": {"kind": "channels", "ratio": 0.5, "rounded": 8}},
        {"quantize": {"kind": "int8", "images": {"low": 8, "high": 32}}},
    ],
    ids=str,
)
def test_mistakes_are_found_where_the_space_is_refused(space: dict[str, Any]) -> None:
    assert not SPACE.is_valid(space)
    with pytest.raises(SpaceError):
        parse_space(space, name="own", image_size=640)


def accepts(content: dict[str, Any]) -> bool:
    """Whether the study is accepted, and there is a preset of the name that it gives."""
    try:
        space = parse_study(content, where="").space
    except ValueError as error:
        # What the schema leaves to the reader, since it is about two keys.
        between_keys = ("targets need names of their own", "has no provider", "takes one picture at a time")
        if any(words in str(error) for words in between_keys):
            return STUDY.is_valid(content)
        return False
    return space in preset_names() or space.endswith(".yaml")


def whole_study() -> dict[str, Any]:
    """A study in which every key is given, with sections where null is allowed."""
    content = {
        **GOOD,
        "other_targets": ["ncnn-cpu", {"name": "own", "runtime": "openvino", "cores": [0, 1], "precisions": ["fp32"]}],
        "budget": {"stall": {}},
        "warm_start": ["results/a"],
        "train_settings": {"mosaic": 0.0, "rect": True},
    }
    return StudyConfig.model_validate(content).model_dump(mode="json")


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every (mapping or list, key or index) below ``content``."""
    pairs = list(content.items() if isinstance(content, dict) else enumerate(content))
    below = [place for _, own in pairs if isinstance(own, dict | list) for place in places(own)]
    return [(content, key) for key, _ in pairs] + below


# No text and no 0 or 1 that Pydantic would take for a number or for true and false, which the schema does not.
NUMBERS = [-1, 2, 3, 31, 32, 96, 255, 5_000, 200_000, -0.5, 0.004, 0.5, 1.5, 2.0, 40.5]
TEXTS = ["tea", "own", "", "a/b", "a.pt", "ncnn-cpu", "onnxruntime", "accuracy", TARGET_FILE]
LISTS = [[], ["accuracy"], ["size", "accuracy"], ["size", "latency"], [2, 3], ["ncnn-cpu"], [{}], [None]]
scalars = st.none() | st.sampled_from([*NUMBERS, *TEXTS])
values = scalars | st.sampled_from(LISTS) | st.dictionaries(st.sampled_from(TEXTS), scalars, max_size=2)


def test_the_schema_and_the_reader_agree_on_each_key_by_itself() -> None:
    assert STUDY.is_valid(whole_study())
    for number, (_, key) in enumerate(places(whole_study())):
        for value in [None, *NUMBERS, *TEXTS, *LISTS, {}, {"colour": 2}]:
            content = whole_study()
            holder, _ = places(content)[number]
            holder[key] = copy.deepcopy(value)
            assert STUDY.is_valid(content) == accepts(content), (key, value)


@given(st.data())
def test_the_schema_and_the_reader_agree_on_changed_studies(data: st.DataObject) -> None:
    content = whole_study()
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(places(content)))
        match data.draw(st.sampled_from(["change", "leave out", "add"])):
            case "change":
                holder[key] = copy.deepcopy(data.draw(values))
            case "leave out":
                del holder[key]
            case _ if isinstance(holder, dict):
                holder[data.draw(st.sampled_from(TEXTS))] = data.draw(scalars)
    assert STUDY.is_valid(content) == accepts(content)
