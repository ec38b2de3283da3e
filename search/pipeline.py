"""From a recipe to a file, in the one order in which its parts make sense.

    baseline ─▶ structure ─▶ activation ─▶ prune ─▶ sparsify ─▶ fine-tune ─▶ qat ─▶ export ─▶ quantize ─▶ finish
               └────────────────────────── trunk ─────────────────────────────┘   └───────── leaf ──────────┘

``shape`` does the part that decides latency and size, ``train`` the part that costs hours, ``write_leaf`` the
part that is cheap enough for every leaf of a trunk. Nothing else knows the order. A prune that trains is done twice:
without training in ``shape``, for the same channel counts, and with it in ``train``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from search.data import calibration_images, sample_batches
from search.formats import check_format
from search.inputs import Inputs
from search.stages.activation import blend_activation, swap_activation
from search.stages.export import export_onnx, finish_onnx
from search.stages.finetune import OnEpoch, Snapshot, silent
from search.stages.formats import export_format
from search.stages.heads import load_model
from search.stages.litert import write_litert
from search.stages.prune import needs_batches
from search.stages.prune_order import prune_in_training, prune_untrained
from search.stages.qat import prepared, settled
from search.stages.quantize import quantize
from search.stages.sparsify import hold_zeros, sparsify
from search.stages.structure import STRUCTURES, change_structure
from search.stages.trainer import AfterStep
from search.training import train_once
from spaces.parts.prune import training_epochs
from spaces.recipe import (
    ActivationName,
    ChannelPrune,
    ChannelPruning,
    Export,
    Finetune,
    Fp16,
    GradualPrune,
    LayerwisePrune,
    MagnitudeSparsify,
    NMSparsify,
    NoPrune,
    NoQat,
    NoSparsify,
    NoStructure,
    Part,
    Recipe,
    SlimmingPrune,
    ThresholdSparsify,
)

LABELLED_BATCHES = 4  # of 16 images, for pruning that looks at gradients, losses or activations


def shape(recipe: Recipe, inputs: Inputs) -> nn.Module:
    """The untrained model of ``recipe``: everything that changes its graph has been done."""
    return _shaped(load_model(inputs.baseline), SHAPE_FIELDS, recipe, inputs)


def train(model: nn.Module, recipe: Recipe, inputs: Inputs, on_epoch: OnEpoch = silent) -> nn.Module:
    """The trunk's final weights: ``model`` trained as ``recipe`` says, or a model as it was."""
    early, tuned, rounded = epochs(recipe)
    total = early + tuned + rounded
    if early:
        model = _pruned_in_training(recipe, inputs, on_epoch)
    hold, note = (None, "") if isinstance(recipe.sparsify, NoSparsify) else (hold_zeros(model), "hold zeros")
    if isinstance(recipe.finetune, Finetune):
        if recipe.finetune.swap_epochs:
            model = blend_activation(model, load_model(inputs.baseline))
        model = _train(model, recipe, inputs, recipe.finetune, hold, note, _shifted(on_epoch, early, total))
    if not isinstance(recipe.qat, NoQat):
        qat, plan, report = recipe.qat, _rounding_plan(recipe), _shifted(on_epoch, early + tuned, total)

        def plain(done: int, whole: int, snapshot: Snapshot) -> None:
            report(done, whole, lambda: settled(snapshot(), qat))

        note = f"{note} {qat.model_dump_json()}"  # hooks that round activations are in no repr
        model = _train(prepared(model, qat), recipe, inputs, plan, hold, note, plain, lambda m: settled(m, qat))
    return model


def epochs(recipe: Recipe) -> tuple[int, int, int]:
    """How long ``recipe`` trains: while it prunes, in the fine-tune, and while it rounds."""
    tuned = recipe.finetune.epochs if isinstance(recipe.finetune, Finetune) else 0
    rounded = 0 if isinstance(recipe.qat, NoQat) else recipe.qat.epochs
    return training_epochs(recipe.prune), tuned, rounded


def _rounding_plan(recipe: Recipe) -> Finetune:
    """The settings of quantization-aware training: those of the fine-tune, but its own epochs and learning rate."""
    assert not isinstance(recipe.qat, NoQat)
    own = {"epochs": recipe.qat.epochs, "lr": recipe.qat.lr, "swap_epochs": 0}
    return recipe.finetune.model_copy(update=own) if isinstance(recipe.finetune, Finetune) else Finetune(**own)


def _shaped(model: nn.Module, fields: Sequence[str], recipe: Recipe, inputs: Inputs) -> nn.Module:
    for field_name in fields:
        part = getattr(recipe, field_name)
        model = SHAPES[type(part)](model, part, recipe, inputs)
    return model


def _pruned_in_training(recipe: Recipe, inputs: Inputs, on_epoch: OnEpoch) -> nn.Module:
    """What ``shape`` gives, of the same shape, with the training that ``recipe.prune`` does on the way."""
    assert isinstance(recipe.prune, ChannelPruning) and isinstance(recipe.finetune, Finetune)
    tune, before, total = recipe.finetune, 0, sum(epochs(recipe))

    def train_for(model: nn.Module, epochs: int, after_step: AfterStep | None) -> nn.Module:
        nonlocal before
        done, part = before, tune.model_copy(update={"epochs": epochs})
        before += epochs
        note = recipe.prune.model_dump_json()
        return _train(model, recipe, inputs, part, after_step, note, _shifted(on_epoch, done, total))

    at = SHAPE_FIELDS.index("prune")
    model = _shaped(load_model(inputs.baseline), SHAPE_FIELDS[:at], recipe, inputs)
    pruned = prune_in_training(model, recipe.prune, train=train_for, **_prune_arguments(recipe.prune, recipe, inputs))
    return _shaped(pruned, SHAPE_FIELDS[at + 1 :], recipe, inputs)


def _train(
    model: nn.Module,
    recipe: Recipe,
    inputs: Inputs,
    part: Finetune,
    after_step: AfterStep | None,
    note: str,
    on_epoch: OnEpoch,
    finish: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> nn.Module:
    return train_once(
        model,
        part,
        recipe.distill,
        inputs,
        image_size=recipe.image_size,
        after_step=after_step,
        note=note,
        on_epoch=on_epoch,
        finish=finish,
    )


def _shifted(on_epoch: OnEpoch, before: int, total: int) -> OnEpoch:
    """Reports the epochs of one training as part of all of a recipe's."""
    return lambda done, _, snapshot: on_epoch(before + done, total, snapshot)


def write_leaf(model: nn.Module, recipe: Recipe, inputs: Inputs, *, folder: Path, form: str = "onnx") -> Path:
    """Writes the model into ``folder``, exported and quantized as ``recipe`` says, in the format ``form``.

    The float ONNX file is kept in ``folder.parent`` under the name of its rewrites, for leaves that share it.

    Raises:
        UserError: the format cannot be written here, or does not carry the recipe's precision.
    """
    if form != "onnx":
        check_format(form, recipe.quantize.kind, gpu=inputs.device != "cpu")
        if form == "litert":
            images = partial(_images, inputs, recipe.image_size)
            path = folder / "model.tflite"
            return write_litert(model, recipe.quantize, image_size=recipe.image_size, images=images, path=path)
        fp16 = isinstance(recipe.quantize, Fp16)
        return export_format(model, form, image_size=recipe.image_size, folder=folder, fp16=fp16, opset=inputs.opset)
    float_file = folder.parent / f"float-{_export_name(recipe.export)}.onnx"
    if not float_file.exists():
        export_onnx(model, recipe.export, image_size=recipe.image_size, path=float_file, opset=inputs.opset)
    images = partial(_images, inputs, recipe.image_size)
    quantized = quantize(float_file, recipe.quantize, images=images, path=folder / "quantized.onnx")
    return finish_onnx(quantized, recipe.export, path=folder / "model.onnx")


def _keep(model: nn.Module, part: Part, recipe: Recipe, inputs: Inputs) -> nn.Module:
    return model


def _restructure(model: nn.Module, part: Part, recipe: Recipe, inputs: Inputs) -> nn.Module:
    return change_structure(model, part, seed=inputs.seed)


def _activate(model: nn.Module, name: ActivationName, recipe: Recipe, inputs: Inputs) -> nn.Module:
    return swap_activation(model, name)


def _prune(model: nn.Module, part: ChannelPruning, recipe: Recipe, inputs: Inputs) -> nn.Module:
    return prune_untrained(model, part, **_prune_arguments(part, recipe, inputs))


def _prune_arguments(part: ChannelPruning, recipe: Recipe, inputs: Inputs) -> dict[str, Any]:
    batches: list[dict[str, Any]] = []
    if needs_batches(part):
        batches = sample_batches(
            inputs.data, image_size=recipe.image_size, count=LABELLED_BATCHES, batch=16, seed=inputs.seed
        )
    return {"image_size": recipe.image_size, "batches": batches, "cache": inputs.cache}


def _sparsify(model: nn.Module, part: Any, recipe: Recipe, inputs: Inputs) -> nn.Module:
    return sparsify(model, part)


# What each part does to the model's graph or zeros. Such a technique is a type, a function and a line here.
SHAPE_FIELDS = ("structure", "activation", "prune", "sparsify")  # new blocks get the activation and are pruned too
SHAPES: dict[type, Callable[[nn.Module, Any, Recipe, Inputs], nn.Module]] = {
    NoStructure: _keep,
    **dict.fromkeys(STRUCTURES, _restructure),
    str: _activate,  # an activation is a bare name
    NoPrune: _keep,
    ChannelPrune: _prune,
    LayerwisePrune: _prune,
    GradualPrune: _prune,
    SlimmingPrune: _prune,
    NoSparsify: _keep,
    ThresholdSparsify: _sparsify,
    MagnitudeSparsify: _sparsify,
    NMSparsify: _sparsify,
}


def facts(model: nn.Module, image_size: int) -> dict[str, int]:
    """What does not depend on the weights: the number of parameters, and FLOPs for one image (two per MAC)."""
    from ultralytics.utils.torch_utils import get_flops

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "flops": round(get_flops(model, image_size) * 1e9)}


def _images(inputs: Inputs, image_size: int, count: int) -> Sequence[Any]:
    return calibration_images(inputs.data, image_size=image_size, count=count, seed=inputs.seed)


def _export_name(part: Export) -> str:
    rewrites = part.model_dump(exclude={"sparse", "compact"})  # done last, so they share one float file
    return "-".join(f"{name}={value}" for name, value in rewrites.items()).replace("/", "_")
