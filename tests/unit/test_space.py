"""Spaces and their domains: what is drawn is inside, valid and worth a trial; what cannot be searched is refused."""

from __future__ import annotations

import itertools
from importlib import resources
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spaces.domain import Choice, Domain, Range, parse_domain
from spaces.params import to_params
from spaces.recipe import Int8Static, Recipe
from spaces.space import Space, SpaceError, load_space, parse_space, preset_names
from spaces.starts import starting_recipes

optuna.logging.set_verbosity(optuna.logging.WARNING)
SAMPLER = optuna.samplers.RandomSampler(seed=0)

decimals = st.integers(-10_000, 10_000).map(lambda n: n / 1000)
numbers = st.one_of(st.integers(-50, 50), decimals, st.floats(-1e6, 1e6))
anything = st.one_of(numbers, st.booleans(), st.text(max_size=3))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    """Whole or fractional, with and without a step (which need not divide the width), or on a log scale."""
    if draw(st.booleans()):
        low, width = draw(st.integers(-20, 20)), draw(st.integers(0, 40))
        return Range(low=low, high=low + width, step=draw(st.none() | st.integers(1, 9)))
    if draw(st.booleans()):
        low, factor = draw(st.floats(1e-9, 1e3)), draw(st.floats(1, 1e3))
        return Range(low=low, high=low * factor, log=True)
    low, width = draw(decimals), draw(st.integers(0, 5000)) / 1000
    step = draw(st.none() | st.sampled_from([0.001, 0.05, 0.1, 0.25, 0.3, 1.0]))
    return Range(low=low, high=round(low + width, 3), step=step)


choices = st.lists(anything, min_size=1, max_size=5).map(lambda values: Choice(values=tuple(values)))


def grid(domain: Range) -> list[float]:
    """Every value of a range that has a grid, counted up one by one in whole thousandths."""
    step = domain.step or 1
    low, high, step = (round(1000 * value) for value in (domain.low, domain.high, step))
    return [n / 1000 for n in range(low, high + 1, step)]


def suggest(domain: Domain) -> Any:
    return domain.suggest(optuna.create_study(sampler=SAMPLER).ask(), "x")


@given(ranges().filter(lambda domain: domain.step is not None or domain.integer), st.floats(-0.5, 1.5))
@example(Range(low=0, high=5, step=3), 1.0)  # the high end is not on the grid
@settings(deadline=None)
def test_nearest_on_a_grid_is_the_closest_by_brute_force(domain: Range, share: float) -> None:
    values, value = grid(domain), domain.low + share * (domain.high - domain.low)
    closest = min(abs(own - value) for own in values)
    found = domain.nearest(value)
    assert found in values
    assert abs(found - value) == pytest.approx(closest, abs=1e-9)


@given(ranges().filter(lambda domain: domain.step is None and not domain.integer), numbers)
@settings(deadline=None)
def test_nearest_without_a_grid_is_the_value_moved_to_the_closer_end(domain: Range, value: float) -> None:
    assert domain.nearest(value) == sorted([domain.low, value, domain.high])[1]


@given(ranges().filter(lambda domain: domain.step is not None), st.integers(-500, 6000))
@example(Range(low=0, high=5, step=3), 5000)
@settings(deadline=None)
def test_a_range_contains_exactly_its_grid(domain: Range, thousandths: int) -> None:
    value = round(1000 * domain.low + thousandths) / 1000
    assert domain.contains(value) == (value in grid(domain))
    assert all(domain.contains(value) for value in grid(domain))


@given(st.one_of(ranges(), choices), anything)
@example(Range(low=1 / 3, high=2 / 3, step=1 / 3), 0.5)
@settings(deadline=None)
def test_nearest_is_in_the_domain_and_leaves_its_members_alone(domain: Domain, value: Any) -> None:
    found = domain.nearest(value)
    assert domain.contains(found)
    assert domain.nearest(found) == found
    if domain.contains(value):
        assert found == value


@given(choices, numbers)
@settings(deadline=None)
def test_nearest_choice_is_the_closest_number_by_brute_force(domain: Choice, value: float) -> None:
    own = [v for v in domain.values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    found = domain.nearest(value)
    if own:
        assert isinstance(found, (int, float))
        assert abs(found - value) == min(abs(v - value) for v in own)
    else:
        assert found == domain.values[0]


@pytest.mark.filterwarnings("ignore:The distribution is specified by:UserWarning")  # a step that does not divide
@given(st.one_of(ranges(), choices))
@example(Range(low=1 / 3, high=1 / 3))
@example(Range(low=1 / 3, high=2 / 3, step=1 / 3))
@example(Range(low=1e-14, high=1e-13, log=True))
@settings(deadline=None)
def test_suggestions_are_in_the_domain(domain: Domain) -> None:
    for _ in range(3):
        value = suggest(domain)
        assert domain.contains(value)
        if isinstance(domain, Range):
            assert isinstance(value, int) == domain.integer


@pytest.mark.filterwarnings("ignore:The distribution is specified by:UserWarning")
@pytest.mark.parametrize(
    ("domain", "every"),
    [
        (Range(low=1, high=4), {1, 2, 3, 4}),
        (Range(low=1, high=4, log=True), {1, 2, 3, 4}),
        (Range(low=8, high=27, step=8), {8, 16, 24}),
        (Range(low=0.1, high=0.45, step=0.1), {0.1, 0.2, 0.3, 0.4}),
        (Choice(values=("l1", "l2", 3, True)), {"l1", "l2", 3, True}),
    ],
)
def test_every_value_is_suggested_sooner_or_later(domain: Domain, every: set[Any]) -> None:
    assert {suggest(domain) for _ in range(100)} == every


def test_a_log_range_is_drawn_evenly_in_its_logarithm() -> None:
    values = [suggest(Range(low=1e-4, high=1.0, log=True)) for _ in range(200)]
    assert 70 < sum(value < 1e-2 for value in values) < 130
    assert all(1e-4 <= value <= 1 for value in values)


def test_a_constant_is_not_asked_about() -> None:
    trial = optuna.create_study(sampler=SAMPLER).ask()
    assert Choice(values=(7,)).suggest(trial, "x") == 7
    assert trial.params == {}


def test_true_is_not_one() -> None:
    assert not Choice(values=(1, 2)).contains(True)
    assert not Choice(values=(True, False)).contains(1)
    assert Choice(values=(True, False)).contains(False)
    assert not Range(low=0, high=2).contains(True)


def test_steps_of_a_tenth_are_the_numbers_that_a_person_writes() -> None:
    domain = Range(low=0.1, high=0.6, step=0.1)
    assert domain.contains(0.3)
    assert domain.nearest(0.31) == 0.3  # 0.1 + 2 * 0.1 is 0.30000000000000004


@pytest.mark.parametrize(
    ("content", "domain"),
    [
        (8, Choice(values=(8,))),
        ("l2", Choice(values=("l2",))),
        (True, Choice(values=(True,))),
        ([1, 2.5, "a"], Choice(values=(1, 2.5, "a"))),
        ({"low": 1, "high": 4}, Range(low=1, high=4)),
        ({"low": 0.1, "high": 0.6, "step": 0.1}, Range(low=0.1, high=0.6, step=0.1)),
        ({"low": 1e-4, "high": 1.0, "log": True}, Range(low=1e-4, high=1.0, log=True)),
    ],
)
def test_parse_domain(content: Any, domain: Domain) -> None:
    assert parse_domain(content, "space.x") == domain


ALLOWED = "allowed are a value, a list of values, or {low, high, step, log}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, f"None is no domain; {ALLOWED}"),
        ([], f"[] is no domain; {ALLOWED}"),
        ([1, [2]], f"[1, [2]] is no domain; {ALLOWED}"),
        ({}, f"{{}} is no domain; {ALLOWED}"),
        ({"low": 1}, f"{{'low': 1}} is no domain; {ALLOWED}"),
        ({"low": 1, "high": 2, "steps": 1}, f"is no domain; {ALLOWED}"),
        ({"low": "1", "high": 2}, "low, high and step must be numbers, not {'low': '1', 'high': 2}"),
        ({"low": True, "high": 2}, "low, high and step must be numbers"),
        ({"low": 3, "high": 2}, "low must not exceed high and step must be above 0, got {'low': 3, 'high': 2}"),
        ({"low": 1, "high": 2, "step": 0}, "low must not exceed high and step must be above 0"),
        ({"low": 0, "high": 2, "log": True}, "a log range needs low above 0 and takes no step"),
        ({"low": 1, "high": 2, "step": 1, "log": True}, "a log range needs low above 0 and takes no step"),
    ],
)
def test_what_is_no_domain_is_refused(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^space\.x: ") as caught:
        parse_domain(content, "space.x")
    assert message in str(caught.value)


# --- spaces


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
    return draw(space, 200)


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
        assert any(name.startswith("prune.channels.") for name in trial.params) == pruned
        assert any(name.startswith("finetune.train.") for name in trial.params) == trained
        assert ("distill.feature.weight" in trial.params) == (recipe.distill.kind == "feature")


def test_no_trial_is_thrown_away(drawn: list[tuple[optuna.Trial, Recipe]]) -> None:
    """A model whose structure or activation changed is trained again, and only what is trained has a teacher."""
    for _, recipe in drawn:
        if recipe.finetune.kind == "none":
            assert (recipe.prune.kind, recipe.activation, recipe.distill.kind) == ("none", "silu", "none")


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


def test_leaves_are_the_product_of_what_is_written(preset: str, space: Space) -> None:
    def options(field: str) -> list[dict[str, Any]]:
        written = preset_content(preset)[field]
        return [
            dict(zip(option, values, strict=True))
            for option in (written if isinstance(written, list) else [written])
            for values in itertools.product(*(v if isinstance(v, list) else [v] for v in option.values()))
        ]

    for _, trunk in draw(space, 5):
        wanted = [
            Recipe.model_validate({**trunk.model_dump(), "quantize": quantize, "export": export})
            for quantize, export in itertools.product(options("quantize"), options("export"))
        ]
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
        ({"colour": 1}, "space: unknown key 'colour'; allowed are image_size, activation, prune, finetune"),
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
        ({"prune": "channels"}, "space.prune: each option needs a kind, one of none, channels; got 'channels'"),
        ({"prune": []}, "space.prune: each option needs a kind, one of none, channels; got []"),
        ({"prune": {"ratio": 0.5}}, "space.prune: each option needs a kind, one of none, channels"),
        ({"prune": {"kind": "heads"}}, "space.prune: each option needs a kind, one of none, channels"),
        ({"quantize": {"kind": ["fp32", "int8"]}}, "space.quantize: each option needs a kind, one of fp32, fp16, int8"),
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
        ({"distill": {"kind": "feature"}}, "space.distill: a teacher can only teach while the student trains"),
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
