"""Stand-ins for a study's baseline: a YOLOv8 of under a million weights, and ways to look at models and files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT, ROOT, YAML

from search.tasks.detect import build

SIZE = 64  # px, side of the pictures and of the models' input
CLASSES = 10
BINS = 16  # of a box side's distribution
ANCHORS = sum((SIZE // stride) ** 2 for stride in (8, 16, 32))
OUTPUT = (1, 4 + CLASSES, ANCHORS)


# Half of YOLOv8's layers, for tests of many models: the same blocks, but one feature map less in the neck.
SHORT: dict[str, Any] = {
    "backbone": [
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "Conv", [128, 3, 2]],
        [-1, 1, "Conv", [256, 3, 2]],
        [-1, 3, "C2f", [256, True]],
        [-1, 1, "Conv", [512, 3, 2]],
        [-1, 1, "Conv", [1024, 3, 2]],
        [-1, 1, "SPPF", [1024, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 3, "C2f", [512]],
        [[3, 9, 6], 1, "Detect", ["nc"]],
    ],
}


def tiny_model(
    *, seed: int = 0, width: float = 0.125, family: str = "v8/yolov8", architecture: dict[str, Any] | None = None
) -> DetectionModel:
    """An untrained YOLO for the digits, no two of whose channels are alike, with scores all over 0 to 1.

    ``width`` 0.125 makes every layer half as wide as in YOLOv8n, which has 0.25; ``family`` is one of Ultralytics'
    files; ``architecture`` has other layers than that. The weights are frozen, as those of Ultralytics' checkpoints
    are.
    """
    torch.manual_seed(seed)
    content: Any = YAML.load(str(ROOT / f"cfg/models/{family}.yaml"))
    content |= {"nc": CLASSES, "scale": "n", "scales": {"n": [0.33, width, 1024]}, **(architecture or {})}
    model: DetectionModel = build(content, None)
    bins = head(model).reg_max
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    for boxes, scores in zip(*branches(model), strict=True):
        assert boxes.bias is not None and scores.bias is not None
        near = -0.5 * torch.arange(bins).repeat(4)  # near distances are likelier, so that boxes are small
        boxes.bias.data = near + 0.1 * torch.randn(4 * bins)
        scores.bias.data.uniform_(-2, 2)
    names = {label: str(label) for label in range(CLASSES)}
    for name, value in {"names": names, "args": dict(DEFAULT_CFG_DICT), "task": "detect"}.items():
        setattr(model, name, value)
    return model.eval().requires_grad_(False)


def head(model: nn.Module) -> Detect:
    """The detection head of a model."""
    (found,) = [module for module in model.modules() if isinstance(module, Detect)]
    return found


def branches(model: nn.Module) -> tuple[list[nn.Conv2d], list[nn.Conv2d]]:
    """The last convolutions of the head, one for each level: of the boxes, and of the scores."""
    boxes, scores = ([list(branch.children())[-1] for branch in part] for part in (head(model).cv2, head(model).cv3))
    return cast(list[nn.Conv2d], boxes), cast(list[nn.Conv2d], scores)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def snapshot(model: nn.Module) -> dict[str, object]:
    """All that a stage must leave as it was: modules, modes, hooks, weights, gradients and buffers."""
    content: dict[str, object] = {}
    for name, module in model.named_modules():
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        content[f"module {name}"] = (type(module), module.training, hooks, sorted(vars(module)))
    for name, value in model.state_dict().items():
        content[f"tensor {name}"] = _digest(value)
    for name, parameter in model.named_parameters():
        gradient = None if parameter.grad is None else _digest(parameter.grad)
        content[f"parameter {name}"] = (parameter.requires_grad, gradient)
    return content


def weights(model: nn.Module) -> dict[str, str]:
    """A digest of every parameter and buffer, by name."""
    return {name: _digest(value) for name, value in model.state_dict().items()}


def answers(model: nn.Module, images: Iterable[np.ndarray]) -> np.ndarray:
    """What PyTorch computes for ``images``, each (1, 3, H, W), in eval mode: (N, 4 + classes, anchors)."""
    copy = deepcopy(model).eval()  # the head remembers the size of its last input
    with torch.no_grad():
        return np.concatenate([copy(torch.from_numpy(image))[0].numpy() for image in images])


def onnx_answers(path: Path, images: Iterable[np.ndarray]) -> np.ndarray:
    """What ONNX Runtime computes for ``images``, each (1, 3, H, W): (N, 4 + classes, anchors)."""
    session = onnxruntime.InferenceSession(str(path), one_thread(), providers=["CPUExecutionProvider"])
    return np.concatenate([np.asarray(session.run(None, {"images": image})[0]) for image in images])


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors; a saved optimised graph brings a warning
    return options


def noise(count: int, *, size: int = SIZE, seed: int = 0) -> list[np.ndarray]:
    """Pictures of coarse noise, each (1, 3, size, size) float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 3, size // 8, size // 8), dtype=np.float32)
    fine = coarse.repeat(8, axis=2).repeat(8, axis=3)
    return list((0.8 * fine + 0.2 * rng.random(fine.shape, dtype=np.float32))[:, None])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files_below(folder: Path) -> dict[str, str]:
    """The digest of every file below ``folder``, by its path."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def conv_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every convolution's weight in a float ONNX file, by the weight's name."""
    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return {node.input[1]: shapes[node.input[1]] for node in graph.node if node.op_type == "Conv"}


def downstream(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes of a sorted graph that depend on ``nodes``, without these."""
    reached = {output for node in nodes for output in node.output}
    found: list[onnx.NodeProto] = []
    for node in graph.node:
        if reached & set(node.input):
            reached |= set(node.output)
            found.append(node)
    names = {node.name for node in nodes}
    return [node for node in found if node.name not in names]


def _digest(value: Tensor) -> str:
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()[:16]}"
