"""The sections of a model, by its own architecture file: backbone, neck and head."""

from __future__ import annotations

from typing import Any

from torch import nn

from search.tasks.table import kind_of_model
from spaces.parts.structure import Where


def layers_in(model: nn.Module, where: Where) -> list[nn.Module]:
    """The layers of one section of a model, in order, without the stem.

    The stem is the first layer: it sees three channels only, so nothing is saved in it.

    Args:
        model: a model of Ultralytics, whose ``yaml`` says how many layers the backbone has.
        where: the section; ``all`` is every one.

    Raises:
        ValueError: the model's last layer is no head.
    """
    layers = list(model.get_submodule("model").children())
    if not kind_of_model(model).outputs(layers[-1]):
        raise ValueError(f"structure: the model's last layer is a {type(layers[-1]).__name__}, not a head")
    content: Any = model.yaml
    neck = len(content["backbone"])
    sections: dict[Where, list[nn.Module]] = {
        "backbone": layers[1:neck],
        "neck": layers[neck:-1],
        "head": layers[-1:],
        "all": layers[1:],
    }
    return sections[where]


def put_in_place(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts ``new`` where ``old`` is inside ``model``, with the notes that Ultralytics' parser left on a layer."""
    new.train(old.training)
    if hasattr(old, "f"):  # a layer: where its input is from, its index, type and size
        parameters = sum(parameter.numel() for parameter in new.parameters())
        kind = f"{type(new).__module__}.{type(new).__name__}"
        for name, value in {"f": old.f, "i": old.i, "type": kind, "np": parameters}.items():
            setattr(new, name, value)
    name = next(name for name, module in model.named_modules() if module is old)
    parent, _, key = name.rpartition(".")
    setattr(model.get_submodule(parent), key, new)
