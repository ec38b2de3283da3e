"""A model and the plan of its training as bytes, for another process of this program."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import cloudpickle
from torch import nn
from torch.nn.utils import parametrize

from search.stages.finetune import Plan


def pack_job(model: nn.Module, plan: Plan) -> bytes:
    """All of it. What the plan does after a step is a function within another, which plain pickle refuses."""
    copy = deepcopy(model)
    rounding = {name: _plain_weight(conv) for name, conv in copy.named_modules() if parametrize.is_parametrized(conv)}
    return cloudpickle.dumps((copy, rounding, plan))


def unpack_job(content: bytes) -> tuple[nn.Module, Plan]:
    """The model and the plan; ``content`` is this program's own."""
    model, rounding, plan = cloudpickle.loads(content)
    for name, module in rounding.items():
        parametrize.register_parametrization(model.get_submodule(name), "weight", module)
    return model, plan


def _plain_weight(layer: Any) -> nn.Module:
    """Leaves ``layer`` with its weight before rounding, in place, and returns what rounds it.

    PyTorch refuses to pickle a layer whose weight is computed, and would take the weight from the class that copies
    of it share.
    """
    [rounding] = layer.parametrizations.weight
    weight = layer.parametrizations.weight.original
    layer.__class__ = type(layer).__bases__[0]
    del layer.parametrizations
    layer.register_parameter("weight", weight)
    return rounding
