"""Every two techniques that do not exclude one another, together in a recipe that is trained, exported and run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError

from search.cache import StageCache
from search.pipeline import Inputs, shape, train, write_leaf
from spaces.combine import epochs_of, exclude_one_another, recipe_of
from spaces.recipe import LEAF_FIELDS, Recipe
from spaces.techniques import TECHNIQUES, Setting
from tests.pairwise import Trunk, cover
from tests.tiny import CLASSES, SHORT, SIZE, noise, onnx_answers, tiny_model

EPOCHS = 2
CALIBRATION = 2  # images; how many there are is no technique
SETTING = Setting(image_size=SIZE, epochs=EPOCHS, images="/data/pictures", teacher="/models/larger.pt")


def refusal(names: Sequence[str]) -> str:
    """Why the recipe refuses these techniques together, or nothing."""
    try:
        recipe_of(names, SETTING)
    except ValidationError as error:
        return str(error)
    return ""


LEAF = [name for name, technique in TECHNIQUES.items() if set(technique.fields(SETTING)) <= set(LEAF_FIELDS)]
TRUNK = [name for name in TECHNIQUES if name not in LEAF]
TOGETHER = [pair for pair in combinations(TECHNIQUES, 2) if not exclude_one_another(*pair, SETTING)]
REFUSED = {pair: sentence for pair in TOGETHER if (sentence := refusal(pair))}
ALLOWED = {frozenset(pair) for pair in TOGETHER} - {frozenset(pair) for pair in REFUSED}
TRUNKS = cover(TRUNK, LEAF, ALLOWED, lambda names: not refusal(names))


def test_the_recipes_have_every_pair_that_is_allowed() -> None:
    covered = [frozenset(pair) for trunk in TRUNKS for pair in trunk.pairs()]
    for pair in combinations(TECHNIQUES, 2):
        assert (frozenset(pair) in covered) == (frozenset(pair) in ALLOWED), pair


def test_what_excludes_one_another_sets_one_field_to_different_values() -> None:
    for one, other in combinations(TECHNIQUES, 2):
        ours, theirs = (flat(TECHNIQUES[name].fields(SETTING)) for name in (one, other))
        different = {key for key in set(ours) & set(theirs) if ours[key] != theirs[key]}
        assert exclude_one_another(one, other, SETTING) == bool(different), (one, other)


@pytest.mark.parametrize("pair", REFUSED, ids=" with ".join)
def test_a_refused_pair_is_refused_with_a_sentence(pair: tuple[str, str]) -> None:
    """Not with pydantic's own words for a field that a type does not have."""
    assert re.search(r"Value error, \S+ \S+ .{20}", REFUSED[pair]), REFUSED[pair]


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a model of half the layers."""
    path = tmp_path_factory.mktemp("short") / "short.pt"
    torch.save({"model": tiny_model(architecture=SHORT)}, path)
    return path


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a wider model with the same classes."""
    path = tmp_path_factory.mktemp("larger") / "larger.pt"
    torch.save({"model": tiny_model(width=0.25, architecture=SHORT)}, path)
    return path


@pytest.mark.parametrize("trunk", TRUNKS, ids=lambda trunk: f"{trunk.names[0]}-{TRUNKS.index(trunk)}")
def test_techniques_together_train_export_and_run(
    trunk: Trunk, short: Path, larger: Path, data: Path, tmp_path: Path
) -> None:
    pictures = data.parent / "images" / "train"
    setting = Setting(image_size=SIZE, epochs=EPOCHS, images=str(pictures), teacher=str(larger))
    inputs = Inputs(baseline=short, data=data, cache=StageCache(tmp_path))
    recipe = recipe_of(trunk.names, setting)
    epochs: list[int] = []
    trained = train(shape(recipe, inputs), recipe, inputs, lambda done, total, _: epochs.append(done))
    assert max(epochs) == epochs_of(recipe)
    for number, names in enumerate([(), *trunk.leaves]):
        leaf = calibrated_quickly(recipe_of((*trunk.names, *names), setting))
        assert leaf.trunk_id == recipe.trunk_id
        file = write_leaf(trained, leaf, inputs, folder=tmp_path / str(number))
        onnx.checker.check_model(str(file))
        answers = onnx_answers(file, noise(1, size=leaf.image_size))
        assert answers.shape == (1, 4 + CLASSES, sum((leaf.image_size // stride) ** 2 for stride in (8, 16, 32))), names
        assert np.isfinite(answers).all(), names
        scores = answers[:, 4:]
        assert scores.min() >= 0 and scores.max() <= 1, names


def calibrated_quickly(recipe: Recipe) -> Recipe:
    if "images" not in type(recipe.quantize).model_fields:
        return recipe
    return recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"images": CALIBRATION})})


def flat(content: object, path: str = "") -> dict[str, object]:
    if not isinstance(content, dict):
        return {path: content}
    return {key: value for name, inner in content.items() for key, value in flat(inner, f"{path}.{name}").items()}
