"""Recipes: lossless round trips, names that follow the content, trunks that ignore the leaves, and refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spaces.params import from_params, to_params
from spaces.recipe import (
    ChannelPrune,
    Export,
    FeatureDistill,
    FeatureLogitDistill,
    Finetune,
    Fp16,
    Fp32,
    Int8Qat,
    Int8Static,
    LogitDistill,
    NoDistill,
    NoFinetune,
    NoPrune,
    NoQat,
    Recipe,
    UnlabeledDistill,
    WeightQat,
    content_hash,
    describe,
)


def shares(high: float = 1.0) -> st.SearchStrategy[float]:
    return st.floats(0, high, exclude_min=True, exclude_max=True)


prunes = st.one_of(
    st.just(NoPrune()),
    st.builds(
        lambda bounds, **rest: ChannelPrune(ratio=min(bounds), max_ratio=max(bounds), **rest),
        st.tuples(shares(), shares()),
        method=st.sampled_from(["l1", "l2", "bn_scale", "taylor", "lamp"]),
        scope=st.sampled_from(["layer", "global"]),
        round_to=st.sampled_from([1, 4, 8, 16, 32]),
    ),
)
finetunes = st.builds(
    lambda epochs, **rest: Finetune(epochs=max(epochs), swap_epochs=min(epochs), **rest),
    st.lists(st.integers(0, 9_999), min_size=2, max_size=2, unique=True),
    lr=shares(),
    schedule=st.sampled_from(["linear", "cosine", "one_cycle"]),
    optimizer=st.sampled_from(["adamw", "adam", "nadam", "radam", "rmsprop", "sgd"]),
    weight_decay=shares(),
    l1=shares(),
    batch=st.integers(1, 4096),
    label_smoothing=shares(),
    freeze=st.integers(0, 1000),
    freeze_names=st.sampled_from(["", "model.22.cv2.*"]),
    ema=st.sampled_from(["ultralytics", "epoch", "none"]),
    mosaic=shares(),
    close_mosaic=shares(),
)
teachers = {"teacher": st.sampled_from(["baseline", "large.pt"]), "teacher_device": st.sampled_from(["", "cpu", "1"])}
distills = st.one_of(
    st.just(NoDistill()),
    st.builds(FeatureDistill, weight=shares(100), **teachers),
    st.builds(LogitDistill, weight=shares(100), temperature=shares(100), **teachers),
    st.builds(FeatureLogitDistill, feature_weight=shares(100), logit_weight=shares(100), **teachers),
    st.builds(UnlabeledDistill, images=st.just("pictures"), weight=shares(100), **teachers),
)
qats = st.one_of(
    st.just(NoQat()),
    st.builds(WeightQat, bits=st.sampled_from([8, 4, 3, 2, 1]), epochs=st.integers(1, 10_000), lr=shares()),
    st.builds(Int8Qat, epochs=st.integers(1, 10_000), lr=shares()),
)
quantizes = st.one_of(
    st.just(Fp32()),
    st.just(Fp16()),
    st.builds(
        Int8Static,
        calibrator=st.sampled_from(["minmax", "entropy", "percentile"]),
        per_channel=st.booleans(),
        head=st.sampled_from(["int8", "float_output", "float"]),
        images=st.integers(1, 1024),
    ),
)
exports = st.builds(Export, fast_dfl=st.booleans())
trainings = st.one_of(st.just((NoFinetune(), NoDistill())), st.tuples(finetunes, distills))
recipes = st.builds(
    lambda training, **rest: Recipe(finetune=training[0], distill=training[1], **rest),
    trainings,
    image_size=st.integers(1, 128).map(lambda cells: 32 * cells),
    activation=st.sampled_from(["silu", "relu", "relu6", "hardswish", "leaky_relu", "mish", "gelu"]),
    prune=prunes,
    qat=qats,
    quantize=quantizes,
    export=exports,
)


@settings(deadline=None)
@given(recipes)
def test_json_and_yaml_give_the_recipe_back(recipe: Recipe) -> None:
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@settings(deadline=None)
@given(recipes)
def test_params_are_flat_and_give_the_recipe_back(recipe: Recipe) -> None:
    params = to_params(recipe)
    assert all(isinstance(value, (bool, int, float, str)) for value in params.values())
    assert from_params(params) == recipe


@settings(deadline=None)
@given(recipes, recipes)
def test_params_of_kinds_not_chosen_are_ignored(recipe: Recipe, other: Recipe) -> None:
    assert from_params({**to_params(other), **to_params(recipe)}) == recipe


def test_params_names() -> None:
    params = to_params(Recipe(image_size=64, prune=ChannelPrune(ratio=0.5)))
    assert params["image_size"] == 64
    assert params["prune.kind"] == "channels"
    assert params["prune.channels.ratio"] == 0.5
    assert params["finetune.kind"] == "none"


def test_params_without_a_needed_value_are_refused() -> None:
    with pytest.raises(ValueError, match="ratio"):
        from_params({"image_size": 64, "prune.kind": "channels"})


@settings(deadline=None)
@given(recipes, recipes)
def test_id_is_equal_exactly_for_equal_recipes(one: Recipe, two: Recipe) -> None:
    assert (one.id == two.id) == (one == two)
    assert Recipe.from_yaml(one.to_yaml()).id == one.id


@settings(deadline=None)
@given(recipes, quantizes, exports)
def test_trunk_id_ignores_quantize_and_export(recipe: Recipe, quantize: Any, export: Export) -> None:
    leaf = recipe.model_copy(update={"quantize": quantize, "export": export})
    assert leaf.trunk_id == recipe.trunk_id


@settings(deadline=None)
@given(recipes, recipes)
def test_trunk_id_differs_when_anything_else_differs(one: Recipe, two: Recipe) -> None:
    plain = {"quantize": Fp32(), "export": Export()}
    same = one.model_copy(update=plain) == two.model_copy(update=plain)
    assert (one.trunk_id == two.trunk_id) == same


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 96},
        {"activation": "relu"},
        {"prune": {"kind": "none"}},
        {"prune": {"kind": "channels", "ratio": 0.26}},
        {"finetune": {"kind": "train", "epochs": 4}},
        {"distill": {"kind": "none"}},
        {"distill": {"kind": "feature", "weight": 0.31}},
        {"distill": {"kind": "feature", "teacher": "large.pt"}},
        {"qat": {"kind": "weights"}},
    ],
)
def test_one_changed_trunk_field_changes_both_ids(change: dict[str, Any]) -> None:
    content: dict[str, Any] = {
        "image_size": 64,
        "prune": {"kind": "channels", "ratio": 0.25},
        "finetune": {"kind": "train", "epochs": 3},
        "distill": {"kind": "feature"},
    }
    recipe, changed = Recipe.model_validate(content), Recipe.model_validate(content | change)
    assert changed.id != recipe.id
    assert changed.trunk_id != recipe.trunk_id


def test_ids_are_the_same_on_every_machine_and_in_every_version() -> None:
    """Study folders name files by these: a change here orphans the artifacts of every older study."""
    recipe = Recipe(
        image_size=640,
        activation="relu",
        prune=ChannelPrune(ratio=0.5),
        finetune=Finetune(epochs=10),
        distill=FeatureDistill(),
        quantize=Int8Static(),
    )
    assert recipe.id == "6b13571fdc88"
    assert recipe.trunk_id == "3788f2471595"


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), min_size=2))
def test_content_hash_ignores_the_order_of_keys(content: dict[str, Any]) -> None:
    backwards = dict(reversed(content.items()))
    assert content_hash(content) == content_hash(backwards)
    assert len(content_hash(content)) == 12


def test_recipes_and_their_parts_are_frozen() -> None:
    recipe = Recipe(image_size=64)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.image_size = 96
    with pytest.raises(ValidationError, match="frozen"):
        recipe.export.fast_dfl = False
    assert hash(recipe) == hash(Recipe(image_size=64))


CHANNELS = {"kind": "channels", "ratio": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distill": {"kind": "feature"}}, "distill needs a finetune step"),
        (
            {"prune": {**CHANNELS, "scope": "global", "max_ratio": 0.4}},
            r"max_ratio 0.4 is below ratio 0.5: no layer could reach it",
        ),
        ({"image_size": 100}, r"image_size\n.*multiple of 32"),
        ({"image_size": 0}, r"image_size\n.*greater than or equal to 32"),
        ({"image_size": 8192}, r"image_size\n.*less than or equal to 4096"),
        ({"activation": "tanh"}, "activation\n.*'silu', 'relu', 'relu6', 'hardswish', 'leaky_relu', 'mish' or 'gelu'"),
        ({"distill": {"kind": "logit"}}, "distill needs a finetune step"),
        ({"finetune": {"kind": "train", "epochs": 3, "swap_epochs": 3}}, "swap_epochs 3 needs more than 3 epochs"),
        ({"qat": {"kind": "weights", "bits": 5}}, r"qat\.weights\.bits\n.*8, 4, 3, 2 or 1"),
        ({"colour": "blue"}, "colour\n.*Extra inputs are not permitted"),
        ({"prune": {**CHANNELS, "depth": 3}}, r"prune\.channels\.depth\n.*Extra inputs are not permitted"),
        ({"prune": {"kind": "none", "ratio": 0.5}}, r"prune\.none\.ratio\n.*Extra inputs are not permitted"),
        ({"prune": {"kind": "channels"}}, r"prune\.channels\.ratio\n.*Field required"),
        ({"prune": {"kind": "heads"}}, "prune\n.*'heads'.*'none', 'channels'"),
        ({"prune": {**CHANNELS, "ratio": 1.0}}, r"prune\.channels\.ratio\n.*less than 1"),
        ({"prune": {**CHANNELS, "ratio": float("nan")}}, r"prune\.channels\.ratio"),
        ({"prune": {**CHANNELS, "round_to": 7}}, r"prune\.channels\.round_to\n.*1, 4, 8, 16 or 32"),
        ({"finetune": {"kind": "train", "epochs": 0}}, r"finetune\.train\.epochs\n.*greater than or equal to 1"),
        ({"finetune": {"kind": "train", "epochs": 1.5}}, r"finetune\.train\.epochs\n.*valid integer"),
        ({"quantize": {"kind": "int8", "images": 0}}, r"quantize\.int8\.images\n.*greater than or equal to 1"),
        ({"quantize": {"kind": "int4"}}, "quantize\n.*'fp32', 'fp16', 'int8'"),
        ({"export": {"kind": "tflite"}}, r"export\.kind\n.*'onnx'"),
    ],
)
def test_refusals_name_the_field_and_what_is_allowed(change: dict[str, Any], message: str) -> None:
    content = {"image_size": 64, **change}
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(content)
    with pytest.raises(ValidationError, match=message):
        Recipe.from_yaml(yaml.safe_dump(content))


def test_max_ratio_binds_a_global_ranking_only() -> None:
    assert ChannelPrune(ratio=0.5, max_ratio=0.4, scope="layer").ratio == 0.5
    assert ChannelPrune(ratio=0.5, max_ratio=0.5, scope="global").ratio == 0.5


@pytest.mark.parametrize("text", ["", "just words", "[1, 2]", "64"])
def test_yaml_that_holds_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Recipe"):
        Recipe.from_yaml(text)


def test_describe_names_only_what_differs_from_the_baseline() -> None:
    assert describe(Recipe(image_size=64)) == "64px · fp32"
    recipe = Recipe(
        image_size=640,
        activation="relu",
        prune=ChannelPrune(ratio=0.25, method="lamp", scope="global"),
        finetune=Finetune(epochs=20),
        distill=FeatureDistill(weight=0.3),
        quantize=Int8Static(head="float"),
    )
    assert describe(recipe) == "640px · relu · prune 0.25 lamp/global · 20 epochs · distill 0.3 · int8 · head float"


def test_the_id_names_choices_and_not_defaults() -> None:
    """A field that is added later, with a default, must not rename the recipes of finished studies."""
    spelled_out = Recipe(image_size=64, prune=ChannelPrune(ratio=0.5, method="l2", scope="layer", round_to=8))
    assert spelled_out.id == Recipe(image_size=64, prune=ChannelPrune(ratio=0.5)).id
    assert Recipe(image_size=64).id == content_hash({"image_size": 64})
    assert Recipe(image_size=64, quantize=Fp16()).id == content_hash({"image_size": 64, "quantize": {"kind": "fp16"}})
