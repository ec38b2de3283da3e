"""What is said of recipes: why they are refused, and what they are in a line."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from spaces.describe import describe
from spaces.parts.prune import training_epochs
from spaces.recipe import (
    ChannelPrune,
    EfficientAttention,
    FeatureDistill,
    Finetune,
    Grouped,
    Int8Static,
    LowBit,
    Mixed,
    Recipe,
    Scale,
)

CHANNELS = {"kind": "channels", "ratio": 0.5}
TRAINS = "this prune trains by itself, with the settings of a finetune step: give it one"


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
        (
            {"prune": {**CHANNELS, "scope": "sensitivity", "max_ratio": 0.4}},
            r"max_ratio 0.4 is below ratio 0.5: no layer could reach it",
        ),
        ({"prune": {**CHANNELS, "include": "model.("}}, r"prune\.channels\.include\n.*no regular expression"),
        (
            {"prune": {**CHANNELS, "kind": "gradual", "steps": 1}},
            r"prune\.gradual\.steps\n.*greater than or equal to 2",
        ),
        ({"prune": {**CHANNELS, "kind": "gradual"}}, TRAINS),
        ({"prune": {**CHANNELS, "kind": "per_layer", "scope": "global"}}, r"prune\.per_layer\.scope\n.*'layer'"),
        ({"prune": {**CHANNELS, "kind": "per_layer", "layers": "model.2."}}, "is not a pattern, = and a ratio"),
        ({"prune": {**CHANNELS, "kind": "per_layer", "layers": "model.(=0.5"}}, "no regular expression"),
        ({"prune": {**CHANNELS, "kind": "per_layer", "layers": "cv1=1"}}, "a ratio from 0 to below 1"),
        ({"prune": {**CHANNELS, "kind": "slimming"}}, TRAINS),
        ({"sparsify": {"kind": "n_m", "n": 4, "m": 4}}, "n 4 is not below m 4: no weight would be put to zero"),
        ({"sparsify": {"kind": "magnitude", "ratio": 1.0}}, r"sparsify\.magnitude\.ratio\n.*less than 1"),
        ({"prune": {"kind": "heads"}}, "prune\n.*'heads'.*'none', 'channels', 'per_layer', 'gradual', 'slimming'"),
        (
            {"structure": {"kind": "attention"}},
            "structure\n.*'none', 'depthwise', 'grouped', 'ghost', 'se', 'eca', 'cbam'",
        ),
        ({"structure": {"kind": "depthwise", "where": "tail"}}, "where\n.*'backbone', 'neck', 'head' or 'all'"),
        ({"structure": {"kind": "grouped", "groups": 3}}, r"structure\.grouped\.groups\n.*2, 4 or 8"),
        (
            {"structure": {"kind": "eca", "reduction": 4}},
            r"structure\.eca\.reduction\n.*Extra inputs are not permitted",
        ),
        ({"structure": {"kind": "scale", "width": 1.5}}, r"structure\.scale\.width\n.*less than or equal to 1"),
        ({"structure": {"kind": "scale", "depth": 0}}, r"structure\.scale\.depth\n.*greater than 0"),
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
        structure=Grouped(groups=4, where="neck"),
        activation="relu",
        prune=ChannelPrune(ratio=0.25, method="lamp", scope="global"),
        finetune=Finetune(epochs=20),
        distill=FeatureDistill(weight=0.3),
        quantize=Int8Static(head="float"),
    )
    assert describe(recipe) == (
        "640px · grouped groups 4 neck · relu · prune 0.25 lamp/global · 20 epochs · distill 0.3 · int8 · head float"
    )
    assert describe(Recipe(image_size=64, structure=Scale(width=0.5))) == "64px · scale width 0.5 depth 1 · fp32"
    assert describe(Recipe(image_size=64, structure=EfficientAttention(where="head"))) == "64px · eca head · fp32"
    low = Recipe(image_size=64, quantize=LowBit(bits=2))
    assert describe(low) == "64px · low_bit · 2 bits"
    mixed = Recipe(image_size=64, quantize=Mixed(budget=0.25, fallback="int16"))
    assert describe(mixed) == "64px · mixed · 0.25 int16"


@pytest.mark.parametrize(
    ("content", "epochs", "words"),
    [
        ({"prune": {**CHANNELS, "where": "head"}}, 0, "prune 0.5 l2/layer · head only"),
        (
            {"prune": {**CHANNELS, "kind": "gradual", "steps": 3, "step_epochs": 2}},
            4,
            "prune 0.5 l2/layer · iterative in 3 steps of 2 epochs",
        ),
        (
            {"prune": {**CHANNELS, "kind": "per_layer", "head": 0.5, "layers": "cv1=0.1"}},
            0,
            "prune 0.5 l2/layer · head ×0.5 · cv1=0.1",
        ),
        ({"prune": {**CHANNELS, "kind": "slimming"}}, 5, "prune 0.5 bn_scale/layer · slimming 5 epochs"),
        ({"sparsify": {"kind": "threshold", "threshold": 0.01}}, 0, "zeros below 0.01"),
        ({"sparsify": {"kind": "magnitude", "ratio": 0.5}}, 0, "zeros 0.5 layer"),
        ({"sparsify": {"kind": "n_m"}}, 0, "2:4 sparse"),
    ],
)
def test_each_kind_of_sparsity_says_what_it_is_and_how_long_it_trains(
    content: dict[str, Any], epochs: int, words: str
) -> None:
    recipe = Recipe.model_validate({"image_size": 64, "finetune": {"kind": "train", "epochs": 6}, **content})
    assert training_epochs(recipe.prune) == epochs
    assert describe(recipe) == f"64px · {words} · 6 epochs · fp32"
