"""Every technique by its name: what it changes in a plain recipe, and one sentence of what it does.

The one list behind the catalogue (each alone, measured), docs/catalogue.md (a line for each) and the pairwise test.
A change names fields of a recipe; what it leaves out of a field is filled in by ``spaces.combine``, so that
techniques of one field that do not exclude one another can be combined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Change = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a technique may depend on, apart from the plain recipe.

    ``image_size`` is the baseline's, in pixels; ``epochs`` all that is trained, in passes over the training split;
    ``lr`` the peak learning rate of the plain fine-tuning, few epochs of which should not undo the baseline's training;
    ``images`` a folder of pictures without labels, and ``teacher`` the checkpoint of a larger model, both absolute
    paths, empty where there is none.
    """

    image_size: int
    epochs: int = 5
    lr: float = 5e-4
    images: str = ""
    teacher: str = ""


@dataclass(frozen=True)
class Technique:
    """A change of a plain recipe, and what it does in one sentence.

    ``besides`` has fields that it needs to show what it does, and leaves to any other technique that sets them.
    """

    change: Change | Callable[[Setting], Change]
    about: str
    besides: Change = field(default_factory=dict[str, Any])

    def fields(self, setting: Setting) -> Change:
        """The fields that it changes."""
        return self.change(setting) if callable(self.change) else self.change


def _prune(**fields: Any) -> Change:
    return {"prune": fields}


def _gradual(order: str) -> Callable[[Setting], Change]:
    """About half of the epochs are trained between the steps, one after each."""
    return lambda setting: _prune(kind="gradual", order=order, steps=max(2, setting.epochs // 2 + 1), step_epochs=1)


def _slimming(setting: Setting) -> Change:
    return _prune(kind="slimming", sparsity_epochs=max(1, setting.epochs // 2))


def _rounded(**qat: Any) -> Callable[[Setting], Change]:
    """All epochs but one are trained on the grid."""
    return lambda setting: {"qat": {**qat, "epochs": max(1, setting.epochs - 1)}}


def _swapped(setting: Setting) -> Change:
    return {"finetune": {"swap_epochs": setting.epochs // 2}}


def _stored(**quantize: Any) -> Change:
    return {"quantize": quantize}


def _unlabeled(setting: Setting) -> Change:
    return {"distill": {"kind": "unlabeled", "images": setting.images}}


def _larger(setting: Setting) -> Change:
    if not setting.teacher:
        raise ValueError("distill-larger needs the checkpoint of a larger model: give it with --teacher")
    return {"distill": {"kind": "logit", "teacher": setting.teacher}}


def _smaller(setting: Setting) -> Change:
    return {"image_size": max(32, int(setting.image_size * 0.8) // 32 * 32)}


PRUNE: dict[str, Technique] = {
    "prune-l1": Technique(_prune(method="l1"), "Half of the channels go, those with the smallest absolute weights."),
    "prune-l2": Technique(_prune(method="l2"), "As prune-l1, by the weights' Euclidean norm."),
    "prune-bn": Technique(_prune(method="bn_scale"), "As prune-l1, by the scale of the batch norm behind."),
    "prune-taylor": Technique(_prune(method="taylor"), "As prune-l1, by the first-order change of the loss."),
    "prune-hessian": Technique(_prune(method="hessian"), "As prune-l1, by the second-order change of the loss."),
    "prune-lamp": Technique(
        _prune(method="lamp", scope="global"), "One ranking of all layers by weights set against the rest of a layer."
    ),
    "prune-fpgm": Technique(_prune(method="fpgm"), "Filters near the geometric median of their layer go."),
    "prune-attention": Technique(_prune(method="attention"), "Channels go that trained gates let through least."),
    "prune-random": Technique(_prune(method="random"), "Channels go by lot: what a score is worth shows beside it."),
    "prune-uniform": Technique(_prune(scope="layer"), "The same share of the channels of every layer goes."),
    "prune-global": Technique(_prune(scope="global"), "One ranking says which layers lose more channels than others."),
    "prune-sensitivity": Technique(
        _prune(scope="sensitivity"), "Layers lose more channels where that raises the loss less, by a scan."
    ),
    "prune-per-layer": Technique(
        _prune(kind="per_layer", scope="layer", backbone=0.8, neck=1.2),
        "Sections, or layers by name, lose shares of their own.",
    ),
    "prune-backbone": Technique(_prune(where="backbone"), "Only the backbone loses channels."),
    "prune-neck": Technique(_prune(where="neck"), "Only the neck loses channels."),
    "prune-head": Technique(_prune(where="head"), "Only the head loses channels."),
    "prune-include": Technique(_prune(include="cv2"), "Only layers with such a name lose channels."),
    "prune-exclude": Technique(_prune(exclude=r"model\.(0|1|2)\."), "Layers with such a name keep their channels."),
    "prune-bn-reestimate": Technique(
        _prune(reestimate_bn=True), "Means and variances of the batch norms are measured anew after channels went."
    ),
    "order-one-shot": Technique(_prune(kind="channels"), "All channels go at once, before any training."),
    "order-iterative": Technique(
        _gradual("iterative"), "Every layer loses a part of its channels, trains, loses the next, and so on."
    ),
    "order-shallow-first": Technique(_gradual("shallow_first"), "Layers lose channels from the input on, in training."),
    "order-deep-first": Technique(_gradual("deep_first"), "Layers lose channels from the output back, in training."),
    "slimming": Technique(_slimming, "Batch-norm scales are trained towards 0 before the channels go."),
}

SPARSIFY: dict[str, Technique] = {
    "sparse-threshold": Technique(
        {"sparsify": {"kind": "threshold", "threshold": 0.01}}, "Weights below a threshold are 0, for good."
    ),
    "sparse-magnitude": Technique(
        {"sparsify": {"kind": "magnitude", "ratio": 0.5, "scope": "layer"}},
        "The smaller half of each layer's weights is 0, for good.",
    ),
    "sparse-global": Technique(
        {"sparsify": {"kind": "magnitude", "ratio": 0.5, "scope": "global"}},
        "The smaller half of all weights is 0, for good.",
    ),
    "sparse-2:4": Technique(
        {"sparsify": {"kind": "n_m", "n": 2, "m": 4}}, "Two of every four weights are 0, for good."
    ),
}

STRUCTURE: dict[str, Technique] = {
    "depthwise": Technique({"structure": {"kind": "depthwise"}}, "3x3 convolutions become depthwise-separable ones."),
    "grouped": Technique({"structure": {"kind": "grouped", "groups": 2}}, "3x3 convolutions get two groups."),
    "ghost": Technique({"structure": {"kind": "ghost"}}, "Half of the channels of 3x3 blocks are made of the rest."),
    "attention-se": Technique({"structure": {"kind": "se"}}, "Squeeze-and-excitation behind every C2f block."),
    "attention-eca": Technique({"structure": {"kind": "eca"}}, "Efficient channel attention in the same places."),
    "attention-cbam": Technique({"structure": {"kind": "cbam"}}, "CBAM's channel attention in the same places."),
    "width": Technique({"structure": {"kind": "scale", "width": 0.5}}, "The family's member of half the width."),
    "depth": Technique({"structure": {"kind": "scale", "depth": 0.34}}, "The family's member of a third of the depth."),
    "image-size": Technique(_smaller, "Images of four fifths of the side."),
}

ACTIVATION: dict[str, Technique] = {
    "silu": Technique({"activation": "silu"}, "YOLOv8's own activation."),
    "relu": Technique({"activation": "relu"}, "The activation is a comparison, which int8 convolutions take in."),
    "relu6": Technique({"activation": "relu6"}, "ReLU that ends at 6, so its range is known."),
    "hardswish": Technique({"activation": "hardswish"}, "SiLU from straight pieces."),
    "leaky-relu": Technique({"activation": "leaky_relu"}, "ReLU with a slope below 0."),
    "mish": Technique({"activation": "mish"}, "A smooth ReLU of three functions."),
    "gelu": Technique({"activation": "gelu"}, "A smooth ReLU by the error function."),
    "swap-gradual": Technique(
        _swapped,
        "The activation fades in over half of the epochs instead of being there at once.",
        {"activation": "relu"},
    ),
}

QUANTIZE: dict[str, Technique] = {
    "fp16": Technique({"quantize": {"kind": "fp16"}}, "Weights in 16-bit float."),
    "int8-minmax": Technique(
        {"quantize": {"kind": "int8", "calibrator": "minmax"}},
        "Weights and activations in 8 bits; ranges hold all seen.",
    ),
    "int8-entropy": Technique(
        {"quantize": {"kind": "int8", "calibrator": "entropy"}},
        "Ranges of activations that lose least information.",
    ),
    "int8-percentile": Technique(
        {"quantize": {"kind": "int8", "calibrator": "percentile"}}, "Ranges of activations without the rarest values."
    ),
    "int8-asymmetric": Technique(
        {"quantize": {"kind": "int8", "symmetric": False}}, "Ranges of activations begin where their values do."
    ),
    "int8-symmetric": Technique(
        {"quantize": {"kind": "int8", "symmetric": True}}, "Ranges of activations lie around 0."
    ),
    "int8-per-channel": Technique(
        {"quantize": {"kind": "int8", "per_channel": True}}, "One weight scale for each output channel."
    ),
    "int8-per-tensor": Technique(
        {"quantize": {"kind": "int8", "per_channel": False}}, "One weight scale for each layer."
    ),
    "int8-head-float-output": Technique(
        {"quantize": {"kind": "int8", "head": "float_output"}}, "The head's last convolutions stay in float."
    ),
    "int8-head-float": Technique({"quantize": {"kind": "int8", "head": "float"}}, "The whole head stays in float."),
    "int8-dynamic": Technique(
        {"quantize": {"kind": "int8_dynamic"}}, "8-bit weights; ranges of activations are found for each image."
    ),
    "int16": Technique({"quantize": {"kind": "int16"}}, "Activations in 16 bits, weights in 8."),
    "mixed": Technique(
        {"quantize": {"kind": "mixed", "budget": 0.2, "fallback": "float"}},
        "8 bits but for the fifth of the layers that suffers most.",
    ),
    "mixed-int16": Technique(
        {"quantize": {"kind": "mixed", "budget": 0.2, "fallback": "int16"}}, "As mixed; those layers get 16 bits."
    ),
    "weight-only-8": Technique({"quantize": {"kind": "weight_only", "bits": 8}}, "8-bit weights, float arithmetic."),
    "weight-only-4": Technique({"quantize": {"kind": "weight_only", "bits": 4}}, "4-bit weights, float arithmetic."),
    "weight-only-3": Technique({"quantize": {"kind": "weight_only", "bits": 3}}, "3-bit weights, float arithmetic."),
    "weight-only-2": Technique({"quantize": {"kind": "weight_only", "bits": 2}}, "Ternary weights, float arithmetic."),
    "weight-only-1": Technique({"quantize": {"kind": "weight_only", "bits": 1}}, "Binary weights, float arithmetic."),
    "w4": Technique({"quantize": {"kind": "low_bit", "bits": 4}}, "4-bit weights, 8-bit arithmetic."),
    "w3": Technique({"quantize": {"kind": "low_bit", "bits": 3}}, "3-bit weights, 8-bit arithmetic."),
    "w2": Technique({"quantize": {"kind": "low_bit", "bits": 2}}, "Ternary weights, 8-bit arithmetic."),
    "w1": Technique({"quantize": {"kind": "low_bit", "bits": 1}}, "Binary weights, 8-bit arithmetic."),
}

EXPORT: dict[str, Technique] = {
    "fast-dfl": Technique({"export": {"fast_dfl": True}}, "Box expectation by a matrix product instead of a softmax."),
    "compact": Technique({"export": {"compact": True}}, "Equal tensors once, short names, no metadata nobody reads."),
    "sparse": Technique({"export": {"sparse": True}}, "Layers with many zeros as a bit mask and the other values."),
}

FINETUNE: dict[str, Technique] = {
    "lr-linear": Technique({"finetune": {"schedule": "linear"}}, "The learning rate falls in a line."),
    "lr-cosine": Technique({"finetune": {"schedule": "cosine"}}, "The learning rate falls as a cosine."),
    "lr-one-cycle": Technique({"finetune": {"schedule": "one_cycle"}}, "The learning rate rises, then falls."),
    "lr-low": Technique(lambda setting: {"finetune": {"lr": setting.lr / 4}}, "A quarter of the learning rate."),
    "lr-high": Technique(lambda setting: {"finetune": {"lr": setting.lr * 4}}, "Four times the learning rate."),
    "adamw": Technique({"finetune": {"optimizer": "adamw"}}, "Adam with decoupled weight decay."),
    "adam": Technique({"finetune": {"optimizer": "adam"}}, "Adam, with weight decay in the gradients."),
    "nadam": Technique({"finetune": {"optimizer": "nadam"}}, "Adam with Nesterov's momentum."),
    "radam": Technique({"finetune": {"optimizer": "radam"}}, "Adam with a rectified start."),
    "rmsprop": Technique({"finetune": {"optimizer": "rmsprop"}}, "Gradients over the root of their mean square."),
    "sgd": Technique(
        lambda setting: {"finetune": {"optimizer": "sgd", "lr": setting.lr * 5}},
        "Momentum; five times the learning rate.",
    ),
    "weight-decay": Technique({"finetune": {"weight_decay": 5e-3}}, "Weights are pulled towards 0, ten times as hard."),
    "l1": Technique({"finetune": {"l1": 0.1}}, "Every step moves the weights towards 0, where they stop."),
    "label-smoothing": Technique(
        {"finetune": {"label_smoothing": 0.05}}, "Some of an object's score goes to all classes."
    ),
    "freeze": Technique({"finetune": {"freeze": 10}}, "The backbone keeps its weights."),
    "ema-ultralytics": Technique({"finetune": {"ema": "ultralytics"}}, "A moving average of growing horizon."),
    "ema-epoch": Technique({"finetune": {"ema": "epoch"}}, "A moving average of the weights over one epoch."),
    "ema-none": Technique({"finetune": {"ema": "none"}}, "The last weights, without an average."),
    "mosaic-off": Technique({"finetune": {"mosaic": 0.0}}, "Training pictures are not put together in fours."),
    "qat-int8": Technique(
        _rounded(kind="int8"),
        "Training rounds weights and activations to 8 bits, as the file will.",
        _stored(kind="int8"),
    ),
    "qat-w8": Technique(
        _rounded(kind="weights", bits=8),
        "Weights are trained on the grid of 8 bits.",
        _stored(kind="weight_only", bits=8),
    ),
    "qat-w4": Technique(
        _rounded(kind="weights", bits=4), "Weights are trained on the grid of 4 bits.", _stored(kind="low_bit", bits=4)
    ),
    "qat-w3": Technique(
        _rounded(kind="weights", bits=3), "Weights are trained on the grid of 3 bits.", _stored(kind="low_bit", bits=3)
    ),
    "qat-w2": Technique(
        _rounded(kind="weights", bits=2), "Weights are trained to be -1, 0 or 1.", _stored(kind="low_bit", bits=2)
    ),
    "qat-w1": Technique(
        _rounded(kind="weights", bits=1), "Weights are trained to be -1 or 1.", _stored(kind="low_bit", bits=1)
    ),
}

DISTILL: dict[str, Technique] = {
    "distill-feature": Technique({"distill": {"kind": "feature"}}, "The head's inputs follow those of the baseline."),
    "distill-logit": Technique({"distill": {"kind": "logit"}}, "Scores and box sides follow those of the baseline."),
    "distill-both": Technique({"distill": {"kind": "feature_logit"}}, "The head's inputs and the answers follow."),
    "distill-unlabeled": Technique(_unlabeled, "The baseline's answers teach alone, on pictures without labels."),
    "distill-larger": Technique(_larger, "Answers follow those of a larger model."),
}

# Title: the file of docs/catalogue that has the details, and the techniques.
FAMILIES: dict[str, tuple[str, dict[str, Technique]]] = {
    "Pruning": ("prune", PRUNE),
    "Zeros": ("prune", SPARSIFY),
    "Structure and input": ("structure", STRUCTURE),
    "Activation": ("structure", ACTIVATION),
    "Precision": ("quantize", QUANTIZE),
    "File": ("quantize", EXPORT),
    "Fine-tuning": ("train", FINETUNE),
    "Distillation": ("train", DISTILL),
}
TECHNIQUES: dict[str, Technique] = {name: one for _, family in FAMILIES.values() for name, one in family.items()}
