"""Recipes: lossless round trips, names that follow the content, and trunks that ignore the leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spaces.params import to_params
from spaces.recipe import (
    CbamChannel,
    ChannelPrune,
    ChannelPruning,
    Depthwise,
    EfficientAttention,
    Export,
    FeatureDistill,
    FeatureLogitDistill,
    Finetune,
    Fp16,
    Fp32,
    Ghost,
    GradualPrune,
    Grouped,
    Int8Dynamic,
    Int8Qat,
    Int8Static,
    Int16,
    LayerwisePrune,
    LogitDistill,
    LowBit,
    MagnitudeSparsify,
    Mixed,
    NMSparsify,
    NoDistill,
    NoFinetune,
    NoPrune,
    NoQat,
    NoSparsify,
    NoStructure,
    Recipe,
    Scale,
    SlimmingPrune,
    SqueezeExcite,
    ThresholdSparsify,
    UnlabeledDistill,
    WeightOnly,
    WeightQat,
    content_hash,
)
from spaces.sense import refusal


def shares(high: float = 1.0) -> st.SearchStrategy[float]:
    return st.floats(0, high, exclude_min=True, exclude_max=True)


def channel_prunes(kind: type[ChannelPruning], **own: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda bounds, **rest: kind(ratio=min(bounds), max_ratio=max(bounds), **rest),
        st.tuples(shares(), shares()),
        method=st.sampled_from(["l1", "l2", "bn_scale", "taylor", "lamp", "hessian", "fpgm", "attention", "random"]),
        scope=own.pop("scope", st.sampled_from(["layer", "global", "sensitivity"])),
        round_to=st.sampled_from([1, 4, 8, 16, 32]),
        where=st.sampled_from(["all", "backbone", "neck", "head"]),
        include=st.sampled_from(["", r"model\.2\."]),
        exclude=st.sampled_from(["", "cv1"]),
        reestimate_bn=st.booleans(),
        **own,
    )


orders = st.sampled_from(["iterative", "shallow_first", "deep_first"])
wheres = st.sampled_from(["backbone", "neck", "head", "all"])
reductions = st.sampled_from([2, 4, 8, 16, 32])
structures = st.one_of(
    st.just(NoStructure()),
    st.builds(Depthwise, where=wheres),
    st.builds(Grouped, where=wheres, groups=st.sampled_from([2, 4, 8])),
    st.builds(Ghost, where=wheres),
    st.builds(SqueezeExcite, where=wheres, reduction=reductions),
    st.builds(EfficientAttention, where=wheres),
    st.builds(CbamChannel, where=wheres, reduction=reductions),
    st.builds(Scale, width=shares(), depth=shares()),
)
prunes = st.one_of(
    st.just(NoPrune()),
    channel_prunes(ChannelPrune),
    channel_prunes(
        LayerwisePrune,
        scope=st.just("layer"),
        backbone=shares(4),
        neck=shares(4),
        head=shares(4),
        layers=st.sampled_from(["", "model.2.=0.5", "cv1=0, model.4.=0.25"]),
    ),
    channel_prunes(GradualPrune, order=orders, steps=st.integers(2, 64), step_epochs=st.integers(0, 10)),
    channel_prunes(SlimmingPrune, sparsity_epochs=st.integers(1, 10), sparsity_weight=shares()),
)
sparsifies = st.one_of(
    st.just(NoSparsify()),
    st.builds(ThresholdSparsify, threshold=shares()),
    st.builds(MagnitudeSparsify, ratio=shares(), scope=st.sampled_from(["layer", "global"])),
    st.builds(NMSparsify, n=st.integers(1, 2), m=st.integers(3, 32)),
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
        symmetric=st.booleans(),
        head=st.sampled_from(["int8", "float_output", "float"]),
        images=st.integers(1, 1024),
    ),
    st.just(Int8Dynamic()),
    st.builds(Int16, images=st.integers(1, 1024)),
    st.builds(WeightOnly, bits=st.sampled_from([8, 4, 3, 2, 1]), skip_ends=st.booleans()),
    st.builds(LowBit, bits=st.sampled_from([4, 3, 2, 1]), skip_ends=st.booleans()),
    st.builds(Mixed, budget=shares(), fallback=st.sampled_from(["float", "int16"])),
)
exports = st.builds(Export, fast_dfl=st.booleans(), sparse=st.booleans(), compact=st.booleans())
fields = st.fixed_dictionaries(
    {
        "image_size": st.integers(1, 128).map(lambda cells: 32 * cells),
        "structure": structures,
        "activation": st.sampled_from(["silu", "relu", "relu6", "hardswish", "leaky_relu", "mish", "gelu"]),
        "prune": prunes,
        "sparsify": sparsifies,
        "finetune": st.one_of(st.just(NoFinetune()), finetunes),
        "distill": distills,
        "qat": qats,
        "quantize": quantizes,
        "export": exports,
    }
)
recipes = (
    fields.map(lambda content: Recipe.model_construct(_fields_set=None, **content))
    .filter(lambda recipe: refusal(to_params(recipe)) is None)
    .map(lambda recipe: Recipe.model_validate(recipe.model_dump()))
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
    assert Recipe.from_params(params) == recipe


@settings(deadline=None)
@given(recipes, recipes)
def test_params_of_kinds_not_chosen_are_ignored(recipe: Recipe, other: Recipe) -> None:
    assert Recipe.from_params({**to_params(other), **to_params(recipe)}) == recipe


def test_params_names() -> None:
    params = to_params(Recipe(image_size=64, prune=ChannelPrune(ratio=0.5)))
    assert params["image_size"] == 64
    assert params["prune.kind"] == "channels"
    assert params["prune.channels.ratio"] == 0.5
    assert params["finetune.kind"] == "none"


def test_params_without_a_needed_value_are_refused() -> None:
    with pytest.raises(ValueError, match="ratio"):
        Recipe.from_params({"image_size": 64, "prune.kind": "channels"})


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
        {"structure": {"kind": "depthwise"}},
        {"activation": "relu"},
        {"prune": {"kind": "none"}},
        {"prune": {"kind": "channels", "ratio": 0.26}},
        {"prune": {"kind": "channels", "ratio": 0.25, "where": "neck"}},
        {"sparsify": {"kind": "n_m"}},
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


def test_the_id_names_choices_and_not_defaults() -> None:
    """A field that is added later, with a default, must not rename the recipes of finished studies."""
    spelled_out = Recipe(image_size=64, prune=ChannelPrune(ratio=0.5, method="l2", scope="layer", round_to=8))
    assert spelled_out.id == Recipe(image_size=64, prune=ChannelPrune(ratio=0.5)).id
    assert Recipe(image_size=64).id == content_hash({"image_size": 64})
    assert Recipe(image_size=64, quantize=Fp16()).id == content_hash({"image_size": 64, "quantize": {"kind": "fp16"}})
