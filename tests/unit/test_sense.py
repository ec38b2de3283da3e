"""What cannot go together is refused with a sentence, by a recipe and by a space; a search never draws it."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from spaces.params import to_params
from spaces.parse import parse_space
from spaces.recipe import Recipe, WeightQat
from spaces.sense import RULES, concerns_a_rule, refusal, wasteful
from spaces.space import SpaceError

TRAIN = {"kind": "train", "epochs": 3}
CHANNELS = {"kind": "channels", "ratio": 0.5}
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"distill": {"kind": "feature"}}, "distill needs a finetune step"),
    ({"distill": {"kind": "logit"}}, "distill needs a finetune step"),
    ({"prune": {**CHANNELS, "kind": "slimming"}}, "this prune trains by itself"),
    ({"prune": {**CHANNELS, "kind": "gradual"}}, "this prune trains by itself"),
    (
        {"structure": {"kind": "se"}, "prune": {**CHANNELS, "method": "attention"}},
        "gates of structure se and cbam would answer",
    ),
    (
        {
            "activation": "relu",
            "prune": {**CHANNELS, "kind": "slimming"},
            "finetune": {**TRAIN, "swap_epochs": 1},
        },
        "this prune has trained the new one before",
    ),
    ({"sparsify": {"kind": "n_m"}, "qat": {"kind": "weights", "bits": 3}}, "3 bits or 1 bit have no zero"),
    ({"sparsify": {"kind": "n_m"}, "quantize": {"kind": "low_bit", "bits": 1}}, "3 bits or 1 bit have no zero"),
    ({"qat": {"kind": "weights", "bits": 4}, "quantize": {"kind": "low_bit", "bits": 2}}, "fewer bits than qat"),
    ({"qat": {"kind": "int8"}, "quantize": {"kind": "weight_only", "bits": 4}}, "fewer bits than qat"),
]
SOUND: list[dict[str, Any]] = [
    {"distill": {"kind": "feature"}, "finetune": TRAIN},
    {"prune": {**CHANNELS, "kind": "gradual", "step_epochs": 0}},
    {"structure": {"kind": "eca"}, "prune": {**CHANNELS, "method": "attention"}},
    {"structure": {"kind": "se"}, "prune": CHANNELS},
    {"activation": "relu", "prune": CHANNELS, "finetune": {**TRAIN, "swap_epochs": 1}},
    {"sparsify": {"kind": "n_m"}, "qat": {"kind": "weights", "bits": 2}},
    {"qat": {"kind": "weights", "bits": 2}, "quantize": {"kind": "low_bit", "bits": 4}},
    {"qat": {"kind": "int8"}, "quantize": {"kind": "int8"}},
    {"qat": {"kind": "int8"}, "quantize": {"kind": "weight_only", "bits": 8}},
]


@pytest.mark.parametrize(("content", "sentence"), BROKEN)
def test_a_recipe_that_makes_no_sense_is_refused(content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Recipe.model_validate({"image_size": 64, **content})


@pytest.mark.parametrize(("content", "sentence"), BROKEN)
def test_a_space_of_such_recipes_alone_is_refused(content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpaceError, match=sentence):
        parse_space(content, name="x", image_size=64)


@pytest.mark.parametrize("content", SOUND)
def test_what_is_next_to_it_is_allowed(content: dict[str, Any]) -> None:
    recipe = Recipe.model_validate({"image_size": 64, **content})
    assert refusal(to_params(recipe)) is None
    assert parse_space(content, name="x", image_size=64).nearest({}) == recipe


def test_every_rule_is_broken_here() -> None:
    sentences = [text for _, text in RULES]
    assert all(any(part in sentence for _, part in BROKEN) for sentence in sentences)


class Watched(dict[str, Any]):
    """Keeps the names that were read."""

    def __init__(self, content: dict[str, Any]) -> None:
        super().__init__(content)
        self.read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def items(self) -> Any:
        raise AssertionError("a rule that looks at everything makes every draw slow")


@pytest.mark.parametrize("content", [*SOUND, *(content for content, _ in BROKEN)])
def test_what_the_rules_read_is_what_a_search_takes_care_of(content: dict[str, Any]) -> None:
    params: dict[str, Any] = {"image_size": 64}
    for field, value in content.items():
        params |= part_of(field, value) if isinstance(value, dict) else {field: value}
    watched = Watched(params)
    for broken, _ in RULES:
        broken(watched)
    wasteful(watched)
    assert {name for name in watched.read if name in params} <= {name for name in params if concerns_a_rule(name)}


def part_of(field: str, part: dict[str, Any]) -> dict[str, Any]:
    kind = part["kind"]
    return {f"{field}.kind": kind, **{f"{field}.{kind}.{key}": value for key, value in part.items() if key != "kind"}}


def test_nothing_is_refused_before_it_is_known() -> None:
    assert refusal({}) is None
    assert refusal({"distill.kind": "logit"}) is None
    assert refusal({"qat.kind": "weights"}) is None


@pytest.fixture(scope="module")
def drawn() -> list[Recipe]:
    content = {
        "structure": [{"kind": "none"}, {"kind": "se"}],
        "prune": [{"kind": "none"}, {**CHANNELS, "method": ["l2", "attention"]}, {**CHANNELS, "kind": "slimming"}],
        "sparsify": [{"kind": "none"}, {"kind": "n_m"}],
        "finetune": [{"kind": "none"}, TRAIN],
        "distill": [{"kind": "none"}, {"kind": "logit"}],
        "qat": [{"kind": "none"}, {"kind": "weights", "bits": [4, 3, 2]}],
        "quantize": [{"kind": "fp32"}, {"kind": "low_bit", "bits": [4, 3, 2]}],
    }
    space = parse_space(content, name="x", image_size=64)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    recipes = [space.suggest(study.ask()) for _ in range(300)]
    for recipe in recipes:
        asked = space.params(recipe)
        assert asked is not None
        leaves = space.leaves(recipe)
        assert recipe in leaves and all(space.params(leaf) is not None for leaf in leaves)
    return recipes


def test_a_search_draws_sense_alone_and_all_of_it(drawn: list[Recipe]) -> None:
    assert {(r.structure.kind, getattr(r.prune, "method", "")) for r in drawn} == {
        ("none", ""), ("none", "l2"), ("none", "attention"), ("none", "bn_scale"), ("se", ""), ("se", "l2"),
        ("se", "bn_scale"),
    }  # fmt: skip
    assert {(r.sparsify.kind, r.qat.bits) for r in drawn if isinstance(r.qat, WeightQat)} == {
        ("none", 4), ("none", 3), ("none", 2), ("n_m", 4), ("n_m", 2)
    }  # fmt: skip


def test_leaves_that_would_lose_the_training_are_left_out() -> None:
    content = {
        "qat": {"kind": "weights", "bits": [4, 2]},
        "quantize": [{"kind": "fp32"}, {"kind": "low_bit", "bits": [4, 3, 2]}],
    }
    space = parse_space(content, name="x", image_size=64)
    found = {
        bits: [
            getattr(leaf.quantize, "bits", 32) for leaf in space.leaves(Recipe(image_size=64, qat=WeightQat(bits=bits)))
        ]
        for bits in (4, 2)
    }
    assert found == {4: [32, 4], 2: [32, 4, 3, 2]}
