"""Spaces: what is drawn is inside, valid and worth a trial; what cannot be searched is refused."""

from __future__ import annotations

import itertools
import re
from importlib import resources
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from spaces.domain import Choice
from spaces.params import to_params
from spaces.parse import load_space, parse_space, preset_names
from spaces.recipe import Grouped, Int8Static, Recipe
from spaces.space import Space, SpaceError
from spaces.starts import starting_recipes


def preset_content(name: str) -> dict[str, Any]:
    return yaml.safe_load((resources.files("spaces") / "presets" / f"{name}.yaml").read_text())


def allows(written: Any, value: Any) -> bool:
    """Whether YAML content for one field allows a value: an independent reading of the format."""
    if isinstance(written, dict):
        low, high, step = written["low"], written["high"], written.get("step")
        steps = (value - low) / step if step else 0
        return low <= value <= high and abs(steps - round(steps)) < 1e-6
    return value in written if isinstance(written, list) else value == written


def assert_inside(recipe: Recipe, content: dict[str, Any], image_size: int) -> None:
    values, defaults = recipe.model_dump(), Recipe(image_size=image_size).model_dump()
    sizes = [round(image_size * scale / 32) * 32 for scale in content["image_size"]["scale"]]
    assert values.pop("image_size") in sizes
    for field, value in values.items():
        written = content.get(field, defaults[field])
        if not isinstance(value, dict):
            assert allows(written, value)
            continue
        options = written if isinstance(written, list) else [written]
        option = next(option for option in options if option["kind"] == value["kind"])
        assert all(allows(option[key], value[key]) for key in option), field


def draw(space: Space, count: int, seed: int = 0) -> list[tuple[optuna.Trial, Recipe]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = [study.ask() for _ in range(count)]
    return [(trial, space.suggest(trial)) for trial in trials]


@pytest.fixture(params=preset_names(), scope="module")
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def space(preset: str) -> Space:
    return load_space(preset, image_size=640)


@pytest.fixture(scope="module")
def drawn(space: Space) -> list[tuple[optuna.Trial, Recipe]]:
    return draw(space, 600)  # the rarest option of detect-full, to train nothing, is drawn once in 210


def test_recipes_drawn_from_a_preset_are_inside_it(preset: str, drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    for _, recipe in drawn:
        assert_inside(recipe, preset_content(preset), 640)


def test_every_option_of_a_preset_is_drawn(preset: str, drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    for field, written in preset_content(preset).items():
        if isinstance(written, list):
            wanted = {option["kind"] if isinstance(option, dict) else option for option in written}
            values = [recipe.model_dump()[field] for _, recipe in drawn]
            assert {value["kind"] if isinstance(value, dict) else value for value in values} == wanted


def test_params_are_what_optuna_was_asked(space: Space, drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    for trial, recipe in drawn:
        asked = space.params(recipe)
        assert asked is not None
        assert {name: value for name, (value, _) in asked.items()} == pytest.approx(trial.params, abs=1e-12)
        for name, distribution in trial.distributions.items():
            domain = asked[name][1]
            if isinstance(domain, Choice):
                assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
                assert domain.values == distribution.choices
            else:
                kind = "IntDistribution" if domain.integer else "FloatDistribution"
                assert type(distribution).__name__ == kind
                assert vars(distribution)["low"] == domain.low
                assert vars(distribution)["high"] == pytest.approx(domain.high)


def test_only_the_fields_of_the_chosen_kinds_are_asked(drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    for trial, recipe in drawn:
        pruned, trained = recipe.prune.kind != "none", recipe.finetune.kind != "none"
        assert (f"prune.{recipe.prune.kind}.ratio" in trial.params) == pruned
        assert any(name.startswith("finetune.train.") for name in trial.params) == trained
        assert ("distill.feature.weight" in trial.params) == (recipe.distill.kind == "feature")
        for field in ("structure", "prune", "sparsify", "finetune", "distill"):
            asked = {name.split(".")[1] for name in trial.params if re.fullmatch(rf"{field}\.\w+\.\w+", name)}
            assert asked <= {getattr(recipe, field).kind}


def test_no_trial_is_thrown_away(drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    """A model whose structure or activation changed is trained again, and only what is trained has a teacher."""
    for _, recipe in drawn:
        if recipe.finetune.kind == "none":
            assert (recipe.prune.kind, recipe.activation, recipe.distill.kind) == ("none", "silu", "none")


def test_a_model_of_other_blocks_is_trained_again() -> None:
    content = {
        "structure": [
            {"kind": "none"},
            {"kind": "grouped", "groups": [2, 4], "where": ["neck", "head"]},
            {"kind": "scale", "width": [0.5, 0.75], "depth": [0.5, 1.0]},
        ],
        "finetune": [{"kind": "none"}, {"kind": "train", "epochs": 3}],
    }
    space = parse_space(content, name="blocks", image_size=64)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask()) for _ in range(60)]
    kinds = {(recipe.structure.kind, recipe.finetune.kind) for recipe in drawn}
    assert kinds == {("none", "none"), ("none", "train"), ("grouped", "train"), ("scale", "train")}
    assert {r.structure.groups for r in drawn if isinstance(r.structure, Grouped)} == {2, 4}
    assert {recipe.structure.kind for recipe in starting_recipes(space, image_size=64)} == {"none"}


def test_a_parameter_has_one_set_of_choices(drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    """Optuna refuses a name that comes with other choices later, so a reduced set needs a name of its own."""
    known: dict[str, Any] = {}
    for trial, _ in drawn:
        for name, distribution in trial.distributions.items():
            assert known.setdefault(name, distribution) == distribution


def test_params_of_a_recipe_outside_the_space() -> None:
    space = parse_space({"activation": ["silu", "relu"]}, name="x", image_size=64)
    assert space.params(Recipe(image_size=64, activation="relu")) is not None
    assert space.params(Recipe(image_size=64, activation="relu6")) is None
    assert space.params(Recipe(image_size=96)) is None
    assert space.params(Recipe(image_size=64, quantize=Int8Static())) is None


def test_nearest_leaves_the_recipes_of_the_space_alone(space: Space, drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    for _, recipe in drawn:
        assert space.nearest(to_params(recipe)) == recipe


def test_nearest_moves_other_recipes_inside(preset: str, drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    small = load_space(preset, image_size=96)
    for _, recipe in drawn:
        assert_inside(small.nearest(to_params(recipe)), preset_content(preset), 96)
    assert_inside(small.nearest({}), preset_content(preset), 96)


def test_nearest_goes_field_by_field() -> None:
    content = {
        "image_size": [320, 640],
        "prune": [{"kind": "none"}, {"kind": "channels", "ratio": {"low": 0.2, "high": 0.7, "step": 0.05}}],
        "finetune": {"kind": "train", "epochs": [5, 20], "lr": {"low": 1e-4, "high": 1e-2, "log": True}},
    }
    found = parse_space(content, name="x", image_size=640).nearest(
        {"image_size": 500, "prune.kind": "channels", "prune.channels.ratio": 0.33, "finetune.train.epochs": 1e9}
    )
    params = to_params(found)
    assert (params["image_size"], params["prune.channels.ratio"], params["finetune.train.epochs"]) == (640, 0.35, 20)
    assert params["finetune.train.lr"] == pytest.approx(1e-3)  # not named: the middle of its range


def goes_together(content: dict[str, Any]) -> bool:
    try:
        Recipe.model_validate(content)
    except ValueError:
        return False
    return True


def test_leaves_are_the_product_of_what_is_written(preset: str, space: Space) -> None:
    def options(field: str) -> list[dict[str, Any]]:
        written = preset_content(preset)[field]
        return [
            dict(zip(option, values, strict=True))
            for option in (written if isinstance(written, list) else [written])
            for values in itertools.product(*(v if isinstance(v, list) else [v] for v in option.values()))
        ]

    for _, trunk in draw(space, 5):
        contents = [
            {**trunk.model_dump(), "quantize": quantize, "export": export}
            for quantize, export in itertools.product(options("quantize"), options("export"))
        ]
        wanted = [Recipe.model_validate(content) for content in contents if goes_together(content)]
        assert len(wanted) == len(contents) or {trunk.qat.kind, trunk.sparsify.kind} != {"none"}
        leaves = space.leaves(trunk)
        assert leaves == wanted
        assert trunk in leaves
        assert {leaf.trunk_id for leaf in leaves} == {trunk.trunk_id}
        assert all(space.params(leaf) is not None for leaf in leaves)


@pytest.mark.parametrize("image_size", [96, 640])
@pytest.mark.parametrize("name", [name for name in preset_names() if name.startswith("detect")])
def test_starts_of_a_detection_preset(name: str, image_size: int) -> None:
    space = load_space(name, image_size=image_size)
    baseline, light, half = starting_recipes(space, image_size=image_size)
    assert len({recipe.trunk_id for recipe in (baseline, light, half)}) == 3
    assert baseline.trunk_id == Recipe(image_size=image_size).trunk_id
    assert {leaf.quantize.kind for leaf in space.leaves(baseline)} >= {"fp32", "int8"}  # so "int8 only" is one of it
    assert [recipe.image_size for recipe in (light, half)] == [image_size, image_size]
    assert (light.activation, to_params(light)["prune.channels.ratio"]) == ("silu", 0.25)
    assert (half.activation, to_params(half)["prune.channels.ratio"]) == ("relu", 0.5)
    assert light.finetune.kind == half.finetune.kind == "train"
    assert light.distill.kind == half.distill.kind == "none"


def test_starts_are_in_every_preset(space: Space) -> None:
    starts = starting_recipes(space, image_size=640)
    assert all(space.params(recipe) is not None for recipe in starts)
    assert starts[0].prune.kind == "none"


def test_starts_of_a_space_of_one_recipe_are_that_recipe() -> None:
    space = parse_space({}, name="x", image_size=64)
    assert starting_recipes(space, image_size=64) == [Recipe(image_size=64)]


@pytest.mark.parametrize(
    ("image_size", "scales", "sizes"),
    [
        (640, [0.8, 1.0], (512, 640)),
        (640, [1.0, 0.5], (320, 640)),
        (96, [0.8, 1.0], (64, 96)),
        (128, [0.95, 1.0], (128,)),
        (32, [0.1, 1.0], (32,)),
    ],
)
def test_scales_give_multiples_of_the_stride(image_size: int, scales: list[float], sizes: tuple[int, ...]) -> None:
    space = parse_space({"image_size": {"scale": scales}}, name="x", image_size=image_size)
    assert space.fields["image_size"] == Choice(values=sizes)


def test_image_sizes_in_pixels() -> None:
    listed = parse_space({"image_size": [320, 416]}, name="x", image_size=640)
    stepped = parse_space({"image_size": {"low": 64, "high": 128, "step": 32}}, name="x", image_size=640)
    assert {recipe.image_size for _, recipe in draw(listed, 50)} == {320, 416}
    assert {recipe.image_size for _, recipe in draw(stepped, 50)} == {64, 96, 128}


def test_a_space_that_says_nothing_holds_the_plain_recipe_alone() -> None:
    space = parse_space({}, name="x", image_size=320)
    [(trial, recipe)] = draw(space, 1)
    assert recipe == Recipe(image_size=320)
    assert trial.params == {}


def test_pruning_without_training_can_be_asked_for() -> None:
    prune = [{"kind": "none"}, {"kind": "channels", "ratio": [0.25, 0.5]}]
    space = parse_space({"prune": prune, "finetune": {"kind": "none"}}, name="x", image_size=64)
    assert {recipe.prune.kind for _, recipe in draw(space, 30)} == {"none", "channels"}


CHANNELS = {"kind": "channels", "ratio": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "space: expected fields of a recipe, got None"),
        ([1], "space: expected fields of a recipe, got [1]"),
        ({"colour": 1}, "space: unknown key 'colour'; allowed are image_size, structure, activation, prune, sparsify"),
        ({"colour": 1, 2: 3}, "space: unknown key"),
        ({"activation": "tanh"}, "space.activation: Input should be 'silu', 'relu'"),
        ({"activation": []}, "space.activation: [] is no domain; allowed are a value, a list"),
        ({"activation": ["relu", "tanh"]}, "got 'tanh'"),
        ({"image_size": 100}, "space.image_size: Input should be a multiple of 32; got 100"),
        ({"image_size": {"low": 64, "high": 128}}, "space.image_size: Input should be a multiple of 32"),
        ({"image_size": {"low": 64, "high": 128, "step": 16}}, "space.image_size: Input should be a multiple of 32"),
        ({"image_size": {"scale": 0.8}}, "space.image_size: scale needs a list of numbers above 0"),
        ({"image_size": {"scale": []}}, "space.image_size: scale needs a list of numbers above 0"),
        ({"image_size": {"scale": ["half"]}}, "space.image_size: scale needs a list of numbers above 0"),
        ({"image_size": {"scale": [0]}}, "space.image_size: scale needs a list of numbers above 0"),
        ({"image_size": {"scale": [100]}}, "space.image_size: Input should be less than or equal to 4096"),
        (
            {"prune": "channels"},
            "space.prune: each option needs a kind, one of none, channels, per_layer",
        ),
        (
            {"prune": []},
            "space.prune: each option needs a kind, one of none, channels, per_layer",
        ),
        ({"prune": {"ratio": 0.5}}, "space.prune: each option needs a kind, one of none, channels, per_layer"),
        (
            {"prune": {"kind": "heads"}},
            "space.prune: each option needs a kind, one of none, channels, per_layer",
        ),
        ({"quantize": {"kind": ["fp32", "int8"]}}, "space.quantize: each option needs a kind, one of fp32, fp16, int8"),
        (
            {"prune": {**CHANNELS, "kind": "gradual", "ratio": 0.5}},
            "space.finetune: this prune trains by itself, with the settings of a finetune step",
        ),
        ({"prune": {"kind": "channels"}}, "space.prune.channels: ratio is missing"),
        ({"prune": {**CHANNELS, "depth": 1}}, "space.prune.channels: unknown key 'depth'; allowed are method, ratio"),
        ({"prune": {"kind": "none", "ratio": 1}}, "space.prune.none: unknown key 'ratio'; allowed are none"),
        ({"prune": [CHANNELS, CHANNELS]}, "space.prune: a kind is given twice; give its fields lists"),
        (
            {"prune": {**CHANNELS, "ratio": {"low": 0.5, "high": 1.5}}},
            "space.prune.channels.ratio: Input should be less",
        ),
        ({"prune": {**CHANNELS, "ratio": {"low": 0.5}}}, "space.prune.channels.ratio: {'low': 0.5} is no domain"),
        ({"prune": {**CHANNELS, "method": ["l2", "l3"]}}, "space.prune.channels.method: Input should be 'l1'"),
        ({"prune": {**CHANNELS, "round_to": {"low": 8, "high": 16}}}, "space.prune.channels.round_to: Input should be"),
        (
            {"prune": {"kind": "channels", "ratio": [0.5, 0.95], "scope": ["global", "layer"]}},
            "space.prune.channels: Value error, max_ratio 0.9 is below ratio 0.95",
        ),
        ({"finetune": {"kind": "train", "epochs": {"low": 1, "high": 3, "step": 0.5}}}, "space.finetune.train.epochs"),
        ({"finetune": {"kind": "train", "epochs": {"low": 1.0, "high": 3.0}}}, "space.finetune.train.epochs: Input"),
        (
            {"distill": {"kind": "feature"}},
            "space.distill: distill needs a finetune step: a teacher can only",
        ),
        (
            {"quantize": {"kind": "int8", "images": {"low": 8, "high": 16}}},
            "space.quantize.int8.images: every value is measured on each trained model, so give a list, no range",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(content: Any, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_space(content, name="x", image_size=64)
    assert message in str(caught.value)


def test_load_space_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("activation: [silu, relu]\n")
    space = load_space(path, image_size=64)
    assert space.name == "mine"
    assert {recipe.activation for _, recipe in draw(space, 30)} == {"silu", "relu"}


def test_spaces_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"there is no file .*missing\.yaml"):
        load_space(tmp_path / "missing.yaml", image_size=64)
    with pytest.raises(SpaceError, match=r"unknown preset 'detect'; presets are .*demo.*detect-cpu"):
        load_space("detect", image_size=64)
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(SpaceError, match=r"broken\.yaml is not valid YAML"):
        load_space(tmp_path / "broken.yaml", image_size=64)
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(SpaceError, match="expected fields of a recipe, got None"):
        load_space(tmp_path / "empty.yaml", image_size=64)
