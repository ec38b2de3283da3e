"""Which choices of a recipe cannot go together, each with a sentence that says why.

Rules see flat parameters (``prune.kind``, ``prune.channels.ratio``, …), of which some may not be chosen yet: a rule
speaks only when all that it is about is known. So the same rules refuse a recipe, and keep a search from drawing one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache

from spaces.params import Value

Rule = Callable[[Mapping[str, Value]], bool]

GRIDS_WITHOUT_ZERO = (3, 1)  # bits of the weights


# The names that rules read; a search asks for no other one what goes with it.
CONCERNED = re.compile(
    r"(structure|prune|sparsify|finetune|distill|qat|quantize)\.kind|activation|prune\.\w+\.method"
    r"|prune\.gradual\.step_epochs|finetune\.train\.swap_epochs|(qat|quantize)\.\w+\.bits"
)


@cache
def concerns_a_rule(name: str) -> bool:
    """Whether any rule is about the parameter ``name``."""
    return CONCERNED.fullmatch(name) is not None


def refusal(chosen: Mapping[str, Value]) -> str | None:
    """Why ``chosen``, all of a recipe or what is known of it so far, makes no sense; None if it does."""
    return next((sentence for broken, sentence in RULES if broken(chosen)), None)


def wasteful(chosen: Mapping[str, Value]) -> bool:
    """Whether a search should rather not draw ``chosen``: a damaged model that is not trained again."""
    if chosen.get("finetune.kind") != "none":
        return False
    damages = ("structure.kind", "prune.kind", "sparsify.kind")
    return chosen.get("activation", "silu") != "silu" or any(chosen.get(name, "none") != "none" for name in damages)


def _trains_while_pruning(chosen: Mapping[str, Value]) -> bool:
    """Whether the prune step trains by itself."""
    kind = chosen.get("prune.kind")
    return kind == "slimming" or (kind == "gradual" and chosen.get("prune.gradual.step_epochs", 0) != 0)


def _taught_without_training(chosen: Mapping[str, Value]) -> bool:
    return chosen.get("distill.kind", "none") != "none" and chosen.get("finetune.kind") == "none"


def _trains_without_settings(chosen: Mapping[str, Value]) -> bool:
    return _trains_while_pruning(chosen) and chosen.get("finetune.kind") == "none"


def _gates_on_gates(chosen: Mapping[str, Value]) -> bool:
    method = chosen.get(f"prune.{chosen.get('prune.kind')}.method")
    return method == "attention" and chosen.get("structure.kind") in {"se", "cbam"}


def _swapped_after_pruning(chosen: Mapping[str, Value]) -> bool:
    return _trains_while_pruning(chosen) and _swap_epochs(chosen) > 0


def _zeros_off_the_grid(chosen: Mapping[str, Value]) -> bool:
    bits = {_trained_bits(chosen), _stored_bits(chosen)}
    return chosen.get("sparsify.kind", "none") != "none" and not bits.isdisjoint(GRIDS_WITHOUT_ZERO)


def _stored_below_training(chosen: Mapping[str, Value]) -> bool:
    trained, stored = _trained_bits(chosen), _stored_bits(chosen)
    return trained is not None and stored is not None and stored < trained


def _swap_epochs(chosen: Mapping[str, Value]) -> float:
    return float(chosen.get("finetune.train.swap_epochs", 0))


def _trained_bits(chosen: Mapping[str, Value]) -> int | None:
    """The bits of the grid that weights are trained on; 8 if the training rounds as ``quantize: int8`` will."""
    match chosen.get("qat.kind"):
        case "weights" if "qat.weights.bits" in chosen:
            return int(chosen["qat.weights.bits"])
        case "int8":
            return 8
        case _:
            return None


def _stored_bits(chosen: Mapping[str, Value]) -> int | None:
    bits = chosen.get(f"quantize.{chosen.get('quantize.kind')}.bits")
    return None if bits is None else int(bits)


# A rule that is new: a function above, and a line here.
RULES: tuple[tuple[Rule, str], ...] = (
    (
        _taught_without_training,
        "distill needs a finetune step: a teacher can only teach while the student trains",
    ),
    (
        _trains_without_settings,
        "this prune trains by itself, with the settings of a finetune step: give it one",
    ),
    (
        _gates_on_gates,
        "prune.method attention gates every channel for a while, which the gates of structure se and cbam would "
        "answer: choose another method, or structure eca",
    ),
    (
        _swapped_after_pruning,
        "finetune.swap_epochs begins with the old activation, but this prune has trained the new one before: make it 0",
    ),
    (
        _zeros_off_the_grid,
        "sparsify puts weights to zero, and weights of 3 bits or 1 bit have no zero: take 8, 4 or 2 bits",
    ),
    (
        _stored_below_training,
        "quantize stores fewer bits than qat trained the weights for, so that training would be lost: "
        "store as many bits, or more",
    ),
)
