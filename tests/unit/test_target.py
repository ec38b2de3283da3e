"""Targets: small files, changed by the study, and refused where they say what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from search.errors import UserError
from search.runtimes.session import Runtime
from search.runtimes.table import RUNTIMES
from search.study import StudyConfig
from search.target import FILES, Target, load_target, target_names


@pytest.mark.parametrize("name", target_names())
def test_every_file_is_a_target_of_a_known_runtime(name: str) -> None:
    target = load_target(name)
    content = yaml.safe_load((FILES / f"{name}.yaml").read_text(encoding="utf-8"))
    assert target.name == name
    assert (target.runtime, target.provider) == (content["runtime"], content.get("provider", "cpu"))
    assert target.about
    assert target.format == RUNTIMES[target.runtime].format
    assert Target.model_validate(target.model_dump(mode="json")) == target


def test_a_study_names_a_target_or_changes_its_keys(tmp_path: Path) -> None:
    own = tmp_path / "board.yaml"
    own.write_text("runtime: onnxruntime\nthreads: 4\nabout: the board in the lab\n")
    content = {"name": "s", "model": "a.pt", "data": "d.yaml", "image_size": 64}
    own_targets = {"target": "onnxruntime-cpu", "other_targets": [{"name": str(own), "runs": 20}]}
    study = StudyConfig.model_validate(content | own_targets)
    assert [target.name for target in study.targets] == ["onnxruntime-cpu", "board"]
    assert study.other_targets[0].as_runtime == Runtime(threads=4)
    assert (study.other_targets[0].runs, study.target.runs) == (20, 200)
    changed = StudyConfig.model_validate(content | {"target": {"name": "onnxruntime-cpu", "threads": 2}}).target
    assert (changed.threads, changed.about) == (2, load_target("onnxruntime-cpu").about)
    assert StudyConfig.model_validate(content).target == Target()
    assert StudyConfig.model_validate(yaml.safe_load(study.to_yaml())) == study


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("toaster", "there is no target toaster; known are .*onnxruntime-cpu"),
        ({"name": "toaster"}, "there is no target toaster"),
        ({"runtime": "tea"}, "there is no runtime tea; known are .*onnxruntime"),
        ({"runtime": "onnxruntime", "provider": "abacus"}, "onnxruntime has no provider abacus; it has cpu"),
        (
            {"name": "onnxruntime-cpu", "provider": "cuda"},
            "provider cuda computes on a gpu, not on a cpu; .*device: gpu",
        ),
        (
            {"name": "onnxruntime-cuda", "provider": "cpu"},
            "provider cpu computes on a cpu, not on a gpu; .*device: cpu",
        ),
        ({"runtime": "tensorrt", "provider": "cuda", "device": "cpu"}, "tensorrt's provider cuda computes on a gpu"),
        ({"thread": 2}, "Extra inputs"),
        ({"batch": 0}, "greater than or equal to 1"),
        ({"batch": 257}, "less than or equal to 256"),
        ({"name": "../up", "runtime": "onnxruntime"}, "should match pattern"),
    ],
)
def test_what_cannot_be_is_refused(target: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StudyConfig.model_validate({"name": "s", "model": "a.pt", "data": "d", "image_size": 64, "target": target})


def test_the_same_runtime_with_several_pictures_is_a_target_with_a_name_of_its_own() -> None:
    content = {"name": "s", "model": "a.pt", "data": "d", "image_size": 64}
    four = {"name": "four-at-once", "runtime": "onnxruntime", "batch": 4}
    study = StudyConfig.model_validate(content | {"other_targets": [four]})
    assert [(target.name, target.batch) for target in study.targets] == [("onnxruntime-cpu", 1), ("four-at-once", 4)]


@pytest.mark.parametrize("name", target_names())
def test_only_runtimes_that_read_onnx_files_take_several_pictures(name: str) -> None:
    assert load_target(name).batch == 1
    if load_target(name).format == "onnx":
        assert load_target(name, batch=4).batch == 4
    else:
        with pytest.raises(UserError, match=r"batch 4: \w+ takes one picture at a time.*leave batch out, or choose"):
            load_target(name, batch=4)


def test_two_targets_need_two_names() -> None:
    content = {"name": "s", "model": "a.pt", "data": "d", "image_size": 64, "other_targets": ["onnxruntime-cpu"]}
    with pytest.raises(ValidationError, match="names of their own, and these are onnxruntime-cpu, onnxruntime-cpu"):
        StudyConfig.model_validate(content)


def test_the_command_line_gets_one_sentence() -> None:
    with pytest.raises(UserError, match="target toaster: there is no target toaster"):
        load_target("toaster")


def test_training_pauses_where_the_wall_clock_counts() -> None:
    assert not Target().pauses_training
    assert Target(threads=2).pauses_training
    assert Target(pause="always").pauses_training
    assert not Target(threads=2, pause="never").pauses_training
    assert load_target("onnxruntime-cuda").pauses_training
    assert not load_target("onnxruntime-cuda", pause="never").pauses_training


def test_a_target_without_precisions_runs_all() -> None:
    assert Target().runs_kind("int8")
    narrow = Target(precisions=("fp32",))
    assert narrow.runs_kind("fp32")
    assert not narrow.runs_kind("int8")
