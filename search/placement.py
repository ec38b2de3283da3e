"""Where trials fit: counted node by node, since a trial never spans two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from search.errors import UserError
from search.resources import Resources
from spaces.domain import Choice
from spaces.space import Space

Amounts = Mapping[str, float]  # of each resource, by the name that Ray has for it
ROUNDING = 1e-9  # 2 / 0.1 is a little less than 20
TOUCH = 0.001  # of a resource that only marks a kind of node


def bundle(resources: Resources) -> dict[str, float]:
    """What Ray sets apart for one trial."""
    asked: dict[str, float] = {"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial, **resources.custom}
    if resources.accelerator_type:
        asked[f"accelerator_type:{resources.accelerator_type}"] = TOUCH  # as Ray's own accelerator_type asks for it
    return {name: amount for name, amount in asked.items() if amount}


def fitting(nodes: Sequence[Amounts], resources: Resources) -> int:
    """How many trials nodes with these resources hold at once; a node without CPUs, as one that only measures, none."""
    asked = bundle(resources)
    return sum(min(_times(name, node.get(name, 0.0), amount) for name, amount in asked.items()) for node in nodes)


def refusal(nodes: Sequence[Amounts], resources: Resources) -> UserError:
    """What to say where no node holds a trial."""
    asked = bundle(resources)
    have = "; ".join(_listed({name: node.get(name, 0.0) for name in asked}) for node in nodes[:4])
    more = f" and {len(nodes) - 4} more" if len(nodes) > 4 else ""
    return UserError(
        f"resources: a trial asks for {_listed(asked)} on one node, but the nodes have {have or 'nothing'}{more}; "
        "lower resources.cpus_per_trial or gpus_per_trial, or start nodes that have it"
    )


def check_teachers(space: Space, resources: Resources) -> None:
    """Refuses a space with a teacher on a GPU that trials do not get.

    Raises:
        UserError: which one, and what to do.
    """
    parts = space.fields["distill"]
    assert isinstance(parts, tuple)
    for part in parts:
        domain = part.fields.get("teacher_device")
        for name in map(str, domain.values) if isinstance(domain, Choice) else ():
            index = name.removeprefix("cuda:").replace("cuda", "0")
            if index.isdigit() and int(index) >= resources.gpus_per_trial:
                raise UserError(
                    f"space {space.name}: distill.{part.kind}.teacher_device {name} needs resources.gpus_per_trial="
                    f"{int(index) + 1}: a trial counts the GPUs that it is given from 0, and has "
                    f"{resources.gpus_per_trial:g}"
                )


def _times(name: str, have: float, amount: float) -> int:
    if name == "GPU" and amount < 1:  # a part of a GPU is a part of one GPU: two of 0.4 leave a fifth of it idle
        return math.floor(have + ROUNDING) * math.floor(1 / amount + ROUNDING)
    return math.floor(have / amount + ROUNDING)


def _listed(amounts: Amounts) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())
