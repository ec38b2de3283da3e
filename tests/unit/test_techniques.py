"""The list of techniques: complete, each alone a valid recipe, and described in the catalogue's document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from search.report.catalogue import techniques_page
from spaces.combine import ExclusionError, epochs_of, exclude_one_another, plain_recipe, recipe_of
from spaces.domain import samples
from spaces.params import to_params
from spaces.parse import load_space, preset_names
from spaces.recipe import Part, Recipe
from spaces.space import Space
from spaces.techniques import FAMILIES, TECHNIQUES, Setting

ROOT = Path(__file__).resolve().parents[2]
SETTING = Setting(image_size=320, images="/data/pictures", teacher="/models/larger.pt")
ALONE = {name: recipe_of([name], SETTING) for name in TECHNIQUES}
PLAIN = plain_recipe(SETTING, trained=True)
# Numbers and places have no end of values; these fields are the ones whose every value is a technique.
NAMED = {"method", "scope", "order", "calibrator", "head", "fallback", "bits", "schedule", "optimizer", "ema"}


def part_types() -> list[tuple[str, type[Part]]]:
    """Every type of every union of the recipe, with its field."""
    hints = get_type_hints(Recipe)
    unions = {field: get_args(hints[field]) or (hints[field],) for field in Recipe.model_fields}
    return [(field, part) for field, parts in unions.items() for part in parts
            if isinstance(part, type) and issubclass(part, Part)]  # fmt: skip


def kind(part: type[Part]) -> str:
    return part.model_fields["kind"].default


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_changes_the_fields_that_it_names_and_no_other(name: str) -> None:
    named = {*TECHNIQUES[name].fields(SETTING), *TECHNIQUES[name].besides}
    changed = {field for field in Recipe.model_fields if getattr(ALONE[name], field) != getattr(PLAIN, field)}
    assert changed <= named | {"finetune"}
    if "finetune" in changed - named:  # it only gives epochs to what trains by itself
        assert ALONE[name].finetune.model_dump(exclude={"epochs"}) == PLAIN.finetune.model_dump(exclude={"epochs"})


@pytest.mark.parametrize("name", TECHNIQUES)
@pytest.mark.parametrize("epochs", [3, 5, 40])
def test_every_technique_trains_the_same_epochs(name: str, epochs: int) -> None:
    assert epochs_of(recipe_of([name], Setting(image_size=320, epochs=epochs, images="/d", teacher="/t.pt"))) == epochs


@pytest.mark.parametrize(("field", "part"), part_types(), ids=lambda value: getattr(value, "__name__", value))
def test_every_type_of_the_recipe_is_in_a_technique(field: str, part: type[Part]) -> None:
    assert any(
        type(getattr(recipe, field)) is part for recipe in [*ALONE.values(), plain_recipe(SETTING, trained=False)]
    )


@pytest.mark.parametrize(("field", "part"), part_types(), ids=lambda value: getattr(value, "__name__", value))
def test_every_named_value_of_a_field_is_in_a_technique(field: str, part: type[Part]) -> None:
    for name, hint in get_type_hints(part).items():
        if name in NAMED and get_origin(hint) is Literal:
            parts = [getattr(recipe, field) for recipe in ALONE.values()]
            # A field that several types share, as the pruning methods, needs each value once among them.
            seen = {getattr(one, name) for one in parts if hasattr(one, name)}
            assert set(get_args(hint)) <= seen, name


def test_every_activation_is_a_technique() -> None:
    assert {recipe.activation for recipe in ALONE.values()} == set(get_args(get_type_hints(Recipe)["activation"]))


def test_names_are_unique_over_the_families() -> None:
    assert len(TECHNIQUES) == sum(len(family) for _, family in FAMILIES.values())


def test_the_document_is_what_the_command_writes() -> None:
    text = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    assert text == techniques_page(), "run: python -m search techniques > docs/catalogue.md"


@pytest.mark.parametrize("name", TECHNIQUES)
def test_the_document_shows_a_recipe_that_is_the_technique(name: str) -> None:
    text = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    [shown] = re.findall(rf"^\| `{re.escape(name)}` \| `(.*)` \| .+ \|$", text, re.M)
    content: Any = yaml.safe_load(
        "{"
        + shown.replace("\\|", "|")
        .replace("epochs: N", f"epochs: {SETTING.epochs}")
        .replace("lr: R", f"lr: {SETTING.lr}")
        + "}"
    )
    recipe = PLAIN.model_copy(update={"finetune": ALONE[name].finetune})  # which gives epochs to what trains by itself
    assert Recipe.model_validate({**recipe.model_dump(), **content}) == ALONE[name]


@pytest.mark.parametrize(("field", "part"), part_types(), ids=lambda value: getattr(value, "__name__", value))
def test_every_type_of_the_recipe_is_in_the_document(field: str, part: type[Part]) -> None:
    text = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    left_alone = type(getattr(plain_recipe(SETTING, trained=False), field)) is part
    assert left_alone or re.search(rf"`.*{field}: {{kind: {kind(part)}\b.*`", text)


def test_techniques_of_one_field_exclude_one_another_only_where_they_want_different_values() -> None:
    assert exclude_one_another("prune-l1", "prune-taylor", SETTING)
    assert exclude_one_another("w4", "int8-minmax", SETTING)
    assert exclude_one_another("relu", "hardswish", SETTING)
    assert not exclude_one_another("prune-l1", "order-deep-first", SETTING)
    assert not exclude_one_another("prune-l1", "w4", SETTING)
    with pytest.raises(ExclusionError, match=r"quantize\.kind cannot be both low_bit and int8"):
        recipe_of(["w4", "int8-minmax"], SETTING)


def test_what_a_technique_takes_besides_is_left_to_others() -> None:
    assert recipe_of(["qat-w4"], SETTING).quantize == recipe_of(["w4"], SETTING).quantize
    assert recipe_of(["qat-w4", "weight-only-4"], SETTING).quantize == recipe_of(["weight-only-4"], SETTING).quantize
    assert recipe_of(["gelu", "swap-gradual"], SETTING).activation == "gelu"


def test_combined_techniques_are_all_in_the_recipe() -> None:
    recipe = recipe_of(["prune-taylor", "order-deep-first", "relu", "w4", "compact", "fast-dfl"], SETTING)
    assert recipe.prune.model_dump(include={"kind", "method", "order"}) == {
        "kind": "gradual",
        "method": "taylor",
        "order": "deep_first",
    }
    assert (recipe.activation, recipe.quantize.kind) == ("relu", "low_bit")
    assert (recipe.export.compact, recipe.export.fast_dfl, recipe.export.sparse) == (True, True, False)
    assert epochs_of(recipe) == SETTING.epochs


# A preset cannot name files of the user's, and the patterns of layers' names are for one model.
OF_THE_USER = {"distill-unlabeled", "distill-larger", "prune-include", "prune-exclude"}


@pytest.mark.parametrize("name", sorted(set(TECHNIQUES) - OF_THE_USER))
def test_every_technique_has_its_place_in_a_preset(name: str) -> None:
    assert any(has_place(name, space) for space in DETECTION)


DETECTION = [load_space(preset, image_size=320) for preset in preset_names() if preset.startswith("detect")]


def has_place(name: str, space: Space) -> bool:
    """Whether a space varies, or holds, every field that a technique sets, at its kind and its named values."""
    own = to_params(ALONE[name])
    for key, change in TECHNIQUES[name].fields(SETTING).items():
        content = space.fields[key]
        if not isinstance(content, tuple):
            if isinstance(own[key], str) and not content.contains(own[key]):
                return False
            continue
        option = next((option for option in content if option.kind == own[f"{key}.kind"]), None)
        if option is None:
            return False
        for field in set(change) - {"kind"}:
            domain, value = option.fields[field], own[f"{key}.{option.kind}.{field}"]
            named = isinstance(value, (str, bool)) or field in NAMED
            varied = len(samples(domain)) > 1 and not named  # a number: another one of the range does as well
            if not domain.contains(value) and not varied and field not in {"epochs", "images"}:
                return False
    return True
