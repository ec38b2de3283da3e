"""The study file: what loads, what ``--set`` changes, and a refusal that names the key for all the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search.resources import Resources
from search.results import open_study
from search.study import StudyConfig, load_study, parse_study


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    """A study whose files are there: the images are empty, since nothing here looks inside."""
    for split in ("train", "val"):
        (tmp_path / "data" / "images" / split).mkdir(parents=True)
        (tmp_path / "data" / "images" / split / "0.jpg").touch()
    data = {"train": "images/train", "val": "images/val", "names": ["cat", "dog"]}
    (tmp_path / "data" / "data.yaml").write_text(yaml.safe_dump(data))
    (tmp_path / "model.pt").touch()
    return {
        "name": "cats",
        "model": str(tmp_path / "model.pt"),
        "data": str(tmp_path / "data" / "data.yaml"),
        "image_size": 640,
    }


def load(content: Any, folder: Path, *overrides: str) -> StudyConfig:
    path = folder / "study.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_study(path, list(overrides))


def refusal(content: Any, folder: Path, *overrides: str) -> str:
    """The one line that the user is shown. Both the study's and the space's errors are ValueErrors of ours."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load(content, folder, *overrides)
    assert type(caught.value).__name__ in {"UserError", "SpaceError"}
    return str(caught.value)


def test_a_study_of_four_keys_loads_with_the_documented_defaults(good: dict[str, Any], tmp_path: Path) -> None:
    config = load(good, tmp_path)
    assert (config.name, config.image_size, config.data) == ("cats", 640, tmp_path / "data" / "data.yaml")
    assert (config.space, config.sampler, config.seed) == ("detect-cpu", "auto", 0)
    assert config.objectives == ("accuracy", "latency")
    assert (config.target.runtime, config.target.threads, config.budget.trials) == ("onnxruntime", 1, 24)
    assert config.load_space().name == "detect-cpu"


def test_every_section_is_read(good: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("activation: [silu, relu]\nfinetune: {kind: train, epochs: 3}\n")
    content = {
        **good,
        "space": str(tmp_path / "mine.yaml"),
        "target": {"threads": 2, "cores": [0, 1], "runs": 50},
        "objectives": ["accuracy", "latency", "size"],
        "constraints": {"max_accuracy_drop": 0.02, "max_size_mb": 3.5},
        "budget": {"trials": None, "minutes": 30},
        "sampler": "nsga2",
        "seed": 7,
        "resources": {"cpus_per_trial": 2, "concurrent": 1, "trial_minutes": 5},
        "baseline": {"epochs": 3},
        "train_settings": {"mosaic": 0.0, "fliplr": 0.0},
    }
    config = load(content, tmp_path)
    assert (config.target.threads, config.target.cores, config.target.runs) == (2, (0, 1), 50)
    assert config.objectives == ("accuracy", "latency", "size")
    assert (config.constraints.max_accuracy_drop, config.constraints.max_size_mb) == (0.02, 3.5)
    assert (config.budget.trials, config.budget.minutes) == (None, 30)
    assert (config.sampler, config.seed, config.baseline.epochs) == ("nsga2", 7, 3)
    assert (config.resources.cpus_per_trial, config.resources.trial_minutes) == (2, 5)
    assert config.train_settings == {"mosaic": 0.0, "fliplr": 0.0}
    assert config.load_space().name == "mine"


@pytest.mark.parametrize("model", ["yolov8n.pt", "yolov8n.yaml", "yolo11s.yml"])
def test_a_bare_name_of_ultralytics_need_not_be_a_file(good: dict[str, Any], tmp_path: Path, model: str) -> None:
    assert load({**good, "model": model}, tmp_path).model == model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "blue"}, "unknown key colour; allowed are name, model, data, image_size, space"),
        ({"budget": {"trails": 3}}, "unknown key budget.trails; allowed are trials, epochs, minutes, stall"),
        ({"target": {"thread": 3}}, "unknown key target.thread; allowed are name, about, runtime, provider, device, "),
        ({"name": "a/b"}, "name: String should match pattern"),
        ({"name": "../up"}, "name: String should match pattern"),
        ({"name": 5}, "name: Input should be a valid string; got 5"),
        ({"image_size": 100}, "image_size: Input should be a multiple of 32; got 100"),
        ({"image_size": 0}, "image_size: Input should be greater than or equal to 32; got 0"),
        ({"image_size": "large"}, "image_size: Input should be a valid integer"),
        ({"image_size": [640, 640]}, "image_size: Input should be a valid integer; got [640, 640]"),
        ({"budget": {"trials": 0}}, "budget.trials: Input should be greater than or equal to 1; got 0"),
        ({"budget": {"minutes": 0}}, "budget.minutes: Input should be greater than 0; got 0"),
        ({"budget": 5}, "budget: Input should be a valid dictionary"),
        ({"objectives": ["latency", "size"]}, "objectives: Value error, objectives are accuracy and at least one of"),
        ({"objectives": ["accuracy"]}, "objectives: Value error, objectives are accuracy and at least one of"),
        ({"objectives": ["accuracy", "accuracy"]}, "objectives: Value error, objectives are accuracy and at least"),
        ({"objectives": ["accuracy", "speed"]}, "objectives.1: Input should be 'accuracy', 'latency' or 'size'"),
        ({"objectives": "accuracy"}, "objectives: Input should be a valid tuple; got 'accuracy'"),
        ({"target": {"threads": 0}}, "target.threads: Input should be greater than or equal to 1; got 0"),
        ({"target": {"cores": ["a"]}}, "target.cores.0: Input should be a valid integer"),
        ({"target": {"runtime": "tea"}}, "target: Value error, there is no runtime tea; known are onnxruntime, "),
        ({"constraints": {"max_accuracy_drop": 1.5}}, "constraints.max_accuracy_drop: Input should be less than or eq"),
        ({"constraints": {"max_latency_ms": -1}}, "constraints.max_latency_ms: Input should be greater than 0; got -1"),
        ({"resources": {"cpus_per_trial": 0}}, "resources.cpus_per_trial: Input should be greater than 0"),
        ({"sampler": "grid"}, "sampler: Input should be 'auto', 'tpe', 'nsga2', 'gp' or 'random'; got 'grid'"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0; got -1"),
        ({"model": "model.onnx"}, "model: Value error, a model is a .pt checkpoint, or a .yaml architecture"),
        ({"model": "nowhere/model.pt"}, "model: there is no file nowhere/model.pt"),
        ({"data": "nowhere/data.yaml"}, "data: there is no file nowhere/data.yaml"),
        ({"data": None}, "data: Input is not a valid path"),
        ({"space": "detect"}, "space: unknown preset 'detect'; presets are"),
        ({"space": "nowhere/space.yaml"}, "space: there is no file nowhere/space.yaml"),
        ({"train_settings": {"mosaic": [1]}}, "train_settings.mosaic"),
    ],
)
def test_refusals_name_the_key_and_what_is_allowed(
    good: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    assert message in refusal({**good, **change}, tmp_path)


@pytest.mark.parametrize("key", ["name", "model", "data", "image_size"])
def test_a_missing_key_is_named(good: dict[str, Any], tmp_path: Path, key: str) -> None:
    del good[key]
    assert refusal(good, tmp_path) == f"{tmp_path}/study.yaml: {key} is missing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "study.yaml is empty or no mapping; a study needs at least name, model, data and image_size"),
        ("- a\n- b\n", "study.yaml is empty or no mapping"),
        ("name: [cats\n", "study.yaml is not valid YAML: while parsing a flow sequence"),
        ("name: cats\n\tmodel: x\n", "study.yaml is not valid YAML"),
    ],
)
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    found = refusal(text, tmp_path)
    assert message in found
    assert "\n" not in found


def test_a_missing_study_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no study file .*study\.yaml; write one"):
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": None}, "has no val split; train and val are both needed"),
        ({"train": None}, "has no train split; train and val are both needed"),
        ({"val": "images/none"}, "val: there is no "),
        ({"val": "images"}, None),  # a folder of folders is fine
        ({"val": "empty"}, "val: no images in empty; known endings are .bmp, .jpeg, .jpg"),
        ({"test": "images/none"}, "test: there is no "),
        ({"names": None}, "is no Ultralytics data file: it needs train, val and names"),
        ({"names": "cat"}, "names must be a list or a mapping of class names"),
        ({"names": 2}, "names must be a list or a mapping of class names"),
    ],
)
def test_data_that_cannot_be_used_is_refused(
    good: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str | None
) -> None:
    (tmp_path / "data" / "empty").mkdir()
    path = tmp_path / "data" / "data.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    if message is None:
        load(good, tmp_path)
    else:
        assert message in refusal(good, tmp_path)


@pytest.mark.parametrize("text", ["names: [cat\n", "", "just words\n"])
def test_a_broken_data_file_is_named(good: dict[str, Any], tmp_path: Path, text: str) -> None:
    (tmp_path / "data" / "data.yaml").write_text(text)
    assert refusal(good, tmp_path).startswith(f"data: {tmp_path}/data/data.yaml is no")


def test_overrides_win_over_the_file_and_are_yaml(good: dict[str, Any], tmp_path: Path) -> None:
    config = load(
        {**good, "budget": {"trials": 3, "minutes": 5}},
        tmp_path,
        "budget.trials=8",
        "target.threads=2",
        "objectives=[accuracy, size]",
        "constraints.max_accuracy_drop=0.05",
        "train_settings.mosaic=0.0",
        "sampler=random",
        "budget.minutes=",
        "seed=1",
        "seed=2",
    )
    assert (config.budget.trials, config.budget.minutes) == (8, None)
    assert (config.target.threads, config.target.runs) == (2, 200)
    assert config.objectives == ("accuracy", "size")
    assert config.constraints.max_accuracy_drop == 0.05
    assert config.train_settings == {"mosaic": 0.0}
    assert (config.sampler, config.seed) == ("random", 2)


def test_an_override_reaches_into_a_section_that_is_there_but_empty(good: dict[str, Any], tmp_path: Path) -> None:
    assert load({**good, "budget": {}}, tmp_path, "budget.trials=8").budget.trials == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.trials", "--set budget.trials: expected key=value, such as --set budget.trials=8"),
        ("=8", "--set =8: expected key=value"),
        ("budget.trials=many", "budget.trials: Input should be a valid integer"),
        ("budget.trails=8", "unknown key budget.trails; allowed are trials, epochs, minutes, stall"),
        ("colour=blue", "unknown key colour; allowed are name"),
        ("name.first=x", "--set name.first=x: name is a value, it has no keys of its own"),
        ("seed=[1", "--set seed=[1: the value is not valid YAML"),
    ],
)
def test_overrides_that_are_refused(good: dict[str, Any], tmp_path: Path, override: str, message: str) -> None:
    found = refusal(good, tmp_path, override)
    assert message in found
    assert "\n" not in found


optional = st.none() | st.floats(0.001, 1)
configs = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
        "model": st.sampled_from(["yolov8n.pt", "a b/c.yaml"]),
        "data": st.sampled_from(["data.yaml", "/a/b.yaml", "on/no.yaml"]),
        "image_size": st.integers(1, 128).map(lambda cells: 32 * cells),
        "objectives": st.sampled_from([("accuracy", "latency"), ("size", "accuracy"), ("accuracy", "latency", "size")]),
        "target": st.fixed_dictionaries(
            {"threads": st.integers(1, 256), "cores": st.none() | st.lists(st.integers(0, 7)).map(tuple)}
        ),
        "constraints": st.fixed_dictionaries({"max_accuracy_drop": optional, "max_latency_ratio": optional}),
        "budget": st.fixed_dictionaries({"trials": st.none() | st.integers(1, 99), "minutes": optional}),
        "sampler": st.sampled_from(["tpe", "nsga2", "random"]),
        "seed": st.integers(0, 2**40),
        "train_settings": st.dictionaries(st.text(), st.booleans() | st.integers() | st.text(max_size=5), max_size=3),
    }
)


@given(configs)
@settings(deadline=None)
def test_yaml_gives_the_study_back(content: dict[str, Any]) -> None:
    config = StudyConfig.model_validate(content)
    assert parse_study(yaml.safe_load(config.to_yaml()), where="") == config


def test_a_study_is_opened_from_its_folder(good: dict[str, Any], tmp_path: Path) -> None:
    config = load(good, tmp_path)
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "study.yaml").write_text(config.to_yaml())
    opened, store = open_study(folder)
    assert opened == config
    assert store.records == {}


def test_trials_that_hold_a_gpu_compute_on_it_unless_told_otherwise() -> None:
    cases = [({}, "cpu"), ({"gpus_per_trial": 0.5}, "0"), ({"gpus_per_trial": 1, "device": "cpu"}, "cpu")]
    assert [Resources.model_validate(content).torch_device for content, _ in cases] == [device for _, device in cases]
