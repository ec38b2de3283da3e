"""A recipe without one of its parts differs in that part, in what is nothing without it, and in nothing else."""

from __future__ import annotations

import random
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.ablation import switched_off
from spaces.parse import load_space, preset_names
from spaces.recipe import (
    ChannelPrune,
    Export,
    FeatureDistill,
    Finetune,
    GradualPrune,
    Int8Qat,
    Int8Static,
    LowBit,
    Recipe,
    SlimmingPrune,
    WeightQat,
)

SIZE = 640
SPACES = {name: load_space(name, image_size=SIZE) for name in preset_names()}

# What may differ, by the name of the part: keys of the recipe's dump. The first is the part itself.
CHANGED: dict[str, list[str]] = {
    "image size": ["image_size"],
    "structure": ["structure"],
    "activation": ["activation", "finetune.swap_epochs"],
    "pruning": ["prune"],
    "zeros": ["sparsify"],
    "training settings": ["finetune"],
    "distillation": ["distill"],
    "training for the rounding": ["qat"],
    "quantization": ["quantize", "qat"],
    "graph rewrites": ["export"],
    "all training": ["finetune", "distill", "qat", "prune"],
}


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """A recipe as a search would draw it from any preset."""
    space = SPACES[draw(st.sampled_from(sorted(SPACES)))]
    sampler = optuna.samplers.RandomSampler(seed=draw(st.integers(0, 2**31)))
    return space.suggest(optuna.create_study(sampler=sampler).ask())


def dump(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


def expected_names(recipe: Recipe) -> set[str]:
    """The parts that are on, read from the dump."""
    content = dump(recipe)
    kinds = {"structure": "structure", "pruning": "prune", "zeros": "sparsify", "distillation": "distill"}
    kinds |= {"training for the rounding": "qat", "all training": "finetune"}
    names = {name for name, field in kinds.items() if content[field]["kind"] != "none"}
    names |= {"image size"} if content["image_size"] != SIZE else set()
    names |= {"activation"} if content["activation"] != "silu" else set()
    names |= {"quantization"} if content["quantize"]["kind"] != "fp32" else set()
    names |= {"graph rewrites"} if any(value is True for value in content["export"].values()) else set()
    if content["finetune"]["kind"] == "train":
        usual = Finetune(epochs=content["finetune"]["epochs"]).model_dump(mode="json")
        names |= {"training settings"} if content["finetune"] != usual else set()
    return names


@given(recipes())
def test_exactly_the_part_differs_and_what_must_go_along(recipe: Recipe) -> None:
    before, found = dump(recipe), switched_off(recipe, image_size=SIZE)
    assert set(found) == expected_names(recipe)
    for name, without in found.items():
        after = dump(without)
        assert Recipe.model_validate(after) == without  # by the recipe's own rules
        part, *along = CHANGED[name]
        assert after[part] != before[part]
        assert all(after[field]["kind"] == "none" for field in along if field in ("distill", "qat"))
        for field in set(before) - {part, *along}:
            kept = before[field]
            if f"{field}.swap_epochs" in along and kept["kind"] == "train":
                kept = {**kept, "swap_epochs": 0}
            assert after[field] == kept, (name, field)


@given(recipes(), st.randoms(use_true_random=False))
def test_all_parts_off_one_after_the_other_in_any_order_is_the_plain_recipe(
    recipe: Recipe, lots: random.Random
) -> None:
    while found := switched_off(recipe, image_size=SIZE):
        name = lots.choice(sorted(found))
        recipe = found[name]
        assert name not in switched_off(recipe, image_size=SIZE)
    assert recipe == Recipe(image_size=SIZE, export=Export(fast_dfl=False))


def test_a_plain_recipe_has_nothing_to_switch_off() -> None:
    assert switched_off(Recipe(image_size=SIZE, export=Export(fast_dfl=False)), image_size=SIZE) == {}


def test_training_on_a_coarse_grid_goes_with_its_quantization_and_not_the_other_way() -> None:
    four = Recipe(image_size=SIZE, finetune=Finetune(epochs=9), qat=WeightQat(bits=4), quantize=LowBit(bits=4))
    found = switched_off(four, image_size=SIZE)
    assert found["quantization"].qat.kind == "none"
    assert found["training for the rounding"].quantize == LowBit(bits=4)
    assert (found["all training"].qat.kind, found["all training"].quantize) == ("none", LowBit(bits=4))


def test_where_only_the_rounding_trains_it_is_named_once() -> None:
    recipe = Recipe(image_size=SIZE, qat=Int8Qat(epochs=3), quantize=Int8Static())
    assert set(switched_off(recipe, image_size=SIZE)) == {
        "training for the rounding",
        "quantization",
        "graph rewrites",
    }


@pytest.mark.parametrize(
    ("prune", "untrained"),
    [
        (GradualPrune(ratio=0.3, steps=3, step_epochs=2), GradualPrune(ratio=0.3, steps=3, step_epochs=0)),
        (SlimmingPrune(ratio=0.3, round_to=16), ChannelPrune(ratio=0.3, round_to=16, method="bn_scale")),
        (ChannelPrune(ratio=0.3, method="lamp"), ChannelPrune(ratio=0.3, method="lamp")),
    ],
)
def test_all_training_includes_what_a_prune_trains(prune: Any, untrained: Any) -> None:
    recipe = Recipe(image_size=SIZE, prune=prune, finetune=Finetune(epochs=5), distill=FeatureDistill())
    found = switched_off(recipe, image_size=SIZE)["all training"]
    assert (found.prune, found.trains, found.distill.kind) == (untrained, False, "none")


def test_the_epochs_of_the_fine_tuning_stay_when_its_settings_go() -> None:
    tune = Finetune(epochs=17, lr=0.01, optimizer="sgd", schedule="one_cycle", swap_epochs=3)
    recipe = Recipe(image_size=SIZE, activation="relu", finetune=tune)
    found = switched_off(recipe, image_size=SIZE)
    assert found["training settings"].finetune == Finetune(epochs=17)
    assert found["activation"].finetune == tune.model_copy(update={"swap_epochs": 0})
