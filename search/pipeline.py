"""From a recipe to a file, in the one order in which its parts make sense.

    baseline ─▶ activation ─▶ prune ─▶ fine-tune (distilled) ─▶ qat ─▶ export ─▶ quantize
               └───────────────── trunk ───────────────────────────┘  └──── leaf ─────┘

``shape`` does the part that decides latency and size, ``train`` the part that costs hours, ``write_leaf`` the
part that is cheap enough for every leaf of a trunk. Nothing else knows the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from search.data import calibration_images, sample_batches
from search.stages.activation import blend_activation, swap_activation
from search.stages.export import export_onnx
from search.stages.finetune import OnEpoch, finetune
from search.stages.prune import NEEDS_GRADIENTS, prune_channels
from search.stages.qat import train_quantized
from search.stages.quantize import quantize
from spaces.recipe import ChannelPrune, Export, Finetune, NoPrune, NoQat, Part, Recipe

GRADIENT_BATCHES = 4  # of 16 images, for pruning methods that look at gradients


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What every recipe of a study starts from."""

    baseline: Path  # checkpoint, also the teacher
    data: Path  # the study's data.yaml, with absolute paths
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    train_settings: dict[str, Any] = field(default_factory=dict)


def load_baseline(path: Path) -> nn.Module:
    """The model in a checkpoint, in float, by Ultralytics' loader, which refuses pickled code of others."""
    from ultralytics.nn.tasks import load_checkpoint

    return load_checkpoint(str(path))[0]


def shape(recipe: Recipe, inputs: Inputs) -> nn.Module:
    """The untrained model of ``recipe``: everything that changes its graph has been done."""
    model = swap_activation(load_baseline(inputs.baseline), recipe.activation)
    for field_name in SHAPE_FIELDS:
        part = getattr(recipe, field_name)
        model = SHAPES[type(part)](model, part, recipe, inputs)
    return model


def train(model: nn.Module, recipe: Recipe, inputs: Inputs, on_epoch: OnEpoch = lambda done, total: None) -> nn.Module:
    """The trunk's final weights: ``model`` trained as ``recipe`` says, or a model as it was."""
    part, qat = recipe.finetune, recipe.qat
    total = getattr(part, "epochs", 0) + getattr(qat, "epochs", 0)

    def tuned(model: nn.Module, part: Finetune, before: int) -> nn.Module:
        return finetune(
            model,
            part,
            recipe.distill,
            data=inputs.data,
            image_size=recipe.image_size,
            teacher=inputs.baseline,
            seed=inputs.seed,
            threads=inputs.threads,
            device=inputs.device,
            on_epoch=lambda done, _: on_epoch(before + done, total),
            extra=inputs.train_settings,
        )

    if isinstance(part, Finetune):
        if part.swap_epochs:
            model = blend_activation(model, load_baseline(inputs.baseline))
        model = tuned(model, part, 0)
    if not isinstance(qat, NoQat):
        again = {"epochs": qat.epochs, "lr": qat.lr, "swap_epochs": 0}
        plan = part.model_copy(update=again) if isinstance(part, Finetune) else Finetune(epochs=qat.epochs, lr=qat.lr)
        model = train_quantized(model, qat, lambda prepared: tuned(prepared, plan, total - qat.epochs))
    return model


def write_leaf(model: nn.Module, recipe: Recipe, inputs: Inputs, *, folder: Path) -> Path:
    """Writes ``folder/model.onnx``: the model exported and quantized as ``recipe`` says.

    The float file is kept in ``folder.parent`` under the name of its rewrites, for leaves that share it.
    """
    float_file = folder.parent / f"float-{_export_name(recipe.export)}.onnx"
    if not float_file.exists():
        export_onnx(model, recipe.export, image_size=recipe.image_size, path=float_file)
    images = partial(_images, inputs, recipe.image_size)
    return quantize(float_file, recipe.quantize, images=images, path=folder / "model.onnx")


def _keep(model: nn.Module, part: Part, recipe: Recipe, inputs: Inputs) -> nn.Module:
    return model


def _prune(model: nn.Module, part: ChannelPrune, recipe: Recipe, inputs: Inputs) -> nn.Module:
    batches: list[dict[str, Any]] = []
    if part.method in NEEDS_GRADIENTS:
        batches = sample_batches(
            inputs.data, image_size=recipe.image_size, count=GRADIENT_BATCHES, batch=16, seed=inputs.seed
        )
    return prune_channels(model, part, image_size=recipe.image_size, batches=batches)


# What each part does to the model's graph. A technique that changes the graph is a type, a function and a line here.
SHAPE_FIELDS = ("prune",)
SHAPES: dict[type[Part], Callable[[nn.Module, Any, Recipe, Inputs], nn.Module]] = {
    NoPrune: _keep,
    ChannelPrune: _prune,
}


def facts(model: nn.Module, image_size: int) -> dict[str, int]:
    """What does not depend on the weights: the number of parameters, and FLOPs for one image (two per MAC)."""
    from ultralytics.utils.torch_utils import get_flops

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "flops": round(get_flops(model, image_size) * 1e9)}


def _images(inputs: Inputs, image_size: int, count: int) -> Sequence[Any]:
    return calibration_images(inputs.data, image_size=image_size, count=count, seed=inputs.seed)


def _export_name(part: Export) -> str:
    return "-".join(f"{name}={value}" for name, value in part.model_dump().items()).replace("/", "_")
