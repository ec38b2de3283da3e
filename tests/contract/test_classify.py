"""A classifier goes through every step that a detector goes through, and comes out as what the step promises."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn

from search.data import calibration_images, make_view, read_data, sample_batches
from search.measure.accuracy import measure_accuracy
from search.pipeline import facts
from search.stages.activation import swap_activation
from search.stages.export import export_onnx, finish_onnx
from search.stages.prune import channel_counts, prune_channels
from search.stages.quantize import quantize
from search.stages.sparsify import sparsify
from search.stages.structure import change_structure
from search.tasks.accuracy import Accuracy, ClassificationAccuracy
from search.tasks.resample import drawn, unpacked
from search.tasks.table import kind_of_model
from spaces.parts.quantize import Quantize
from spaces.recipe import (
    CbamChannel,
    ChannelPrune,
    Depthwise,
    EfficientAttention,
    Export,
    Fp16,
    Ghost,
    Grouped,
    Int8Dynamic,
    Int8Static,
    Int16,
    LowBit,
    MagnitudeSparsify,
    Mixed,
    Scale,
    SqueezeExcite,
    WeightOnly,
)
from tests.onnx_look import operators, optimised
from tests.tiny import CLASSES, metadata, noise, one_thread, onnx_answers, parameters, snapshot, weights
from tests.tiny_classifier import COUNTS, SIDE, head

Leaf = Callable[[Quantize], Path]


@pytest.fixture(scope="module")
def file(classifier: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "model.onnx"
    return export_onnx(classifier, Export(), image_size=SIDE, path=path)


@pytest.fixture(scope="module")
def leaf(file: Path, class_view: Path, tmp_path_factory: pytest.TempPathFactory) -> Leaf:
    """Gives the file in a precision, calibrated on the scans."""

    def images(count: int) -> list[np.ndarray]:
        return calibration_images(class_view, image_size=SIDE, count=count, seed=0)

    return lambda part: quantize(file, part, images=images, path=tmp_path_factory.mktemp("leaf") / "model.onnx")


def answers(model: nn.Module, images: list[np.ndarray]) -> np.ndarray:
    """The probabilities by PyTorch, (N, classes)."""
    with torch.no_grad():
        return np.concatenate([model(torch.from_numpy(image))[0].numpy() for image in images])


def agreement(path: Path, file: Path, scans: Path) -> float:
    """The share of the training pictures to which two files give the same class."""
    images = [pixels(picture) for picture in sorted((scans / "train").glob("*/*.png"))]
    return float(np.mean(onnx_answers(path, images).argmax(1) == onnx_answers(file, images).argmax(1)))


# --- the file and its accuracy


def test_the_file_computes_what_the_model_computes(classifier: nn.Module, file: Path) -> None:
    images = noise(8, size=SIDE)
    found = onnx_answers(file, images)
    assert found.shape == (8, CLASSES)
    np.testing.assert_allclose(found, answers(classifier, images), atol=1e-4)
    assert len(set(found.argmax(1))) > 2  # the answers depend on the picture
    assert metadata(file)["task"] == "classify"
    assert ast.literal_eval(metadata(file)["names"]) == {number: str(number) for number in range(CLASSES)}
    assert facts(classifier, SIDE)["parameters"] == parameters(classifier)


def pixels(path: Path) -> np.ndarray:
    """A picture of the right size, (1, 3, H, W) float32 in [0, 1]."""
    return np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255


def ranked(file: Path, folder: Path) -> np.ndarray:
    """How many classes score above each picture's own: pictures as they are, classes by their folder."""
    session = onnxruntime.InferenceSession(str(file), one_thread(), providers=["CPUExecutionProvider"])
    ranks: list[int] = []
    for path in sorted(folder.glob("*/*.png")):
        [scores] = np.asarray(session.run(None, {"images": pixels(path)})[0])
        ranks.append(int((scores > scores[int(path.parent.name)]).sum()))
    return np.array(ranks)


def counted(file: Path, folder: Path) -> tuple[float, float, int]:
    """Top-1 and top-5 by numpy, probabilities by ONNX Runtime."""
    ranks = ranked(file, folder)
    return float(np.mean(ranks < 1)), float(np.mean(ranks < 5)), len(ranks)


def top(found: Accuracy) -> ClassificationAccuracy:
    assert isinstance(found, ClassificationAccuracy)
    return found


@pytest.mark.parametrize("split", ["val", "test"])
def test_accuracy_is_what_numpy_counts(file: Path, class_view: Path, scans: Path, split: str) -> None:
    found = top(measure_accuracy(file, class_view, split=split, image_size=SIDE))
    top1, top5, images = counted(file, scans / split)
    assert (found.split, found.images) == (split, images)
    assert (found.top1, found.top5) == pytest.approx((top1, top5))
    assert images == COUNTS[split]
    assert 0.2 < found.top1 < found.top5 < 1
    assert found.value == found.top1 and found.metric == "top-1"


def test_top1_says_how_far_it_depends_on_the_images(file: Path, class_view: Path, scans: Path) -> None:
    """Resamples of the pictures in their order, and Wilson's interval by its formula."""
    found = top(measure_accuracy(file, class_view, image_size=SIDE))
    hits = ranked(file, scans / "val") < 1
    n, z = len(hits), 1.959964
    assert unpacked(found.resampled) == pytest.approx(drawn(n) @ hits / n, abs=1e-5)
    middle = (found.top1 + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(found.top1 * (1 - found.top1) / n + z**2 / (4 * n**2))
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))


def test_a_class_that_val_lacks_moves_no_other_class(file: Path, class_view: Path, scans: Path, tmp_path: Path) -> None:
    """Ultralytics numbers the folders of a split; the names in the file say which class each is."""
    for path in scans.glob("*/*/*.png"):
        if path.parent.parent.name == "train" or path.parent.name > "3":
            copy = tmp_path / "data" / path.relative_to(scans)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    few = make_view(read_data(tmp_path / "data"), tmp_path / "view")
    found = top(measure_accuracy(file, few, image_size=SIDE))
    top1, top5, images = counted(file, tmp_path / "data" / "val")
    assert (found.images, found.top1, found.top5) == (images, pytest.approx(top1), pytest.approx(top5))


# --- what changes the graph


@pytest.mark.parametrize(
    ("method", "scope"),
    [(name, "layer") for name in ("l1", "l2", "bn_scale", "lamp", "fpgm", "taylor", "hessian", "attention")]
    + [(name, "global") for name in ("l2", "lamp", "taylor")],
)
def test_pruning_removes_channels_and_keeps_the_classes(
    classifier: nn.Module, class_view: Path, tmp_path: Path, method: Any, scope: Any
) -> None:
    before = snapshot(classifier)
    batches = sample_batches(class_view, image_size=SIDE, count=2, batch=8, seed=0)
    part = ChannelPrune(ratio=0.5, method=method, scope=scope, round_to=4)
    small = prune_channels(classifier, part, image_size=SIDE, batches=batches)
    assert snapshot(classifier) == before
    assert parameters(small) < 0.7 * parameters(classifier)
    assert head(small).linear.out_features == CLASSES
    assert head(small).linear.in_features == head(small).conv.conv.out_channels < 1280
    if scope == "layer":
        assert head(small).conv.conv.out_channels == 640
        halves = {name: count // 2 // 4 * 4 for name, count in channel_counts(classifier).items()}
        assert channel_counts(small) == halves
    assert weights(prune_channels(classifier, part, image_size=SIDE, batches=batches)) == weights(small)
    path = export_onnx(small, Export(), image_size=SIDE, path=tmp_path / "model.onnx")
    np.testing.assert_allclose(onnx_answers(path, noise(2, size=SIDE)), answers(small, noise(2, size=SIDE)), atol=1e-5)


def test_a_very_small_model_has_a_file_too(classifier: nn.Module, tmp_path: Path) -> None:
    """Ultralytics' exporter takes what is below 0.1 MB for broken."""
    tiny = prune_channels(classifier, ChannelPrune(ratio=0.9, round_to=4), image_size=SIDE, batches=[])
    path = export_onnx(tiny, Export(), image_size=SIDE, path=tmp_path / "model.onnx")
    assert path.stat().st_size < 100_000
    np.testing.assert_allclose(onnx_answers(path, noise(2, size=SIDE)), answers(tiny, noise(2, size=SIDE)), atol=1e-4)


@pytest.mark.parametrize("where", ["backbone", "head"])
def test_pruning_by_sensitivity_and_by_place(classifier: nn.Module, class_view: Path, where: Any) -> None:
    batches = sample_batches(class_view, image_size=SIDE, count=1, batch=8, seed=0)
    part = ChannelPrune(ratio=0.5, scope="sensitivity", where=where, round_to=4, reestimate_bn=True)
    small = prune_channels(classifier, part, image_size=SIDE, batches=batches)
    before, after = channel_counts(classifier), channel_counts(small)
    inside = {name for name in before if name.startswith("model.9.") == (where == "head")}
    assert {name for name in before if after[name] < before[name]} <= inside
    assert any(after[name] < before[name] for name in inside)


def test_every_activation_but_the_softmax_is_swapped(classifier: nn.Module, file: Path, tmp_path: Path) -> None:
    before = operators(file)
    path = export_onnx(swap_activation(classifier, "relu"), Export(), image_size=SIDE, path=tmp_path / "model.onnx")
    after = operators(path)
    assert (before["Sigmoid"], before["Relu"], before["Softmax"]) == (26, 0, 1)
    assert (after["Sigmoid"], after["Relu"], after["Softmax"]) == (0, 26, 1)


def test_zeros_are_in_the_convolutions(classifier: nn.Module, tmp_path: Path) -> None:
    sparse = sparsify(classifier, MagnitudeSparsify(ratio=0.75))
    path = export_onnx(sparse, Export(), image_size=SIDE, path=tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shares = [float((stored[node.input[1]] == 0).mean()) for node in graph.node if node.op_type == "Conv"]
    assert len(shares) == 26
    assert shares == pytest.approx([0.75] * 26, abs=0.01)
    [linear] = [stored[node.input[1]] for node in graph.node if node.op_type == "Gemm"]
    assert (linear != 0).all()
    small = finish_onnx(path, Export(sparse=True, compact=True), path=tmp_path / "small.onnx")
    assert small.stat().st_size < 0.5 * path.stat().st_size
    np.testing.assert_array_equal(onnx_answers(small, noise(4, size=SIDE)), onnx_answers(path, noise(4, size=SIDE)))


@pytest.mark.parametrize(
    ("part", "operator", "count"),
    [
        (SqueezeExcite(where="all"), "GlobalAveragePool", 4 + 1 + 1),  # behind each C2f and the head's block; its own
        (SqueezeExcite(where="head"), "GlobalAveragePool", 1 + 1),
        (EfficientAttention(where="backbone"), "GlobalAveragePool", 4 + 1),
        (CbamChannel(where="head"), "GlobalMaxPool", 1),
        (Depthwise(), "Conv", 26 + 16),  # two for each 3x3 convolution but the stem
        (Ghost(), "Conv", 26 + 16),
        (Grouped(groups=2), "Conv", 26),
    ],
)
def test_structures(classifier: nn.Module, file: Path, tmp_path: Path, part: Any, operator: str, count: int) -> None:
    changed = change_structure(classifier, part, seed=0)
    path = export_onnx(changed, Export(), image_size=SIDE, path=tmp_path / "model.onnx")
    found = operators(path)
    assert found[operator] == count or (operator == "GlobalMaxPool" and found["MaxPool"] + found["ReduceMax"] == count)
    if part.kind in {"se", "eca", "cbam"}:  # starts as the identity
        np.testing.assert_allclose(
            onnx_answers(path, noise(4, size=SIDE)), onnx_answers(file, noise(4, size=SIDE)), atol=1e-5
        )
    else:
        assert parameters(changed) < parameters(classifier)
    small = prune_channels(changed, ChannelPrune(ratio=0.5, round_to=4), image_size=SIDE, batches=[])
    assert parameters(small) < 0.7 * parameters(changed)


def test_scale_takes_slices_of_the_weights(classifier: nn.Module) -> None:
    small = change_structure(classifier, Scale(width=0.5, depth=0.34), seed=0)
    ours, theirs = head(small), head(classifier)
    assert ours.conv.conv.in_channels == theirs.conv.conv.in_channels // 2
    torch.testing.assert_close(ours.conv.conv.weight, theirs.conv.conv.weight[:, : ours.conv.conv.in_channels])
    torch.testing.assert_close(ours.linear.weight, theirs.linear.weight)
    assert kind_of_model(small).name == "classify"
    whole = change_structure(classifier, Scale(), seed=0)
    np.testing.assert_allclose(answers(whole, noise(2, size=SIDE)), answers(classifier, noise(2, size=SIDE)), atol=1e-6)


# --- precisions


def test_int8_is_fused_but_for_the_softmax(leaf: Leaf, file: Path, class_view: Path, scans: Path) -> None:
    path = leaf(Int8Static(images=16))
    fused = optimised(path)
    assert (fused["QLinearConv"], fused["Conv"], fused["QGemm"], fused["Gemm"]) == (26, 0, 1, 0)
    assert fused["Softmax"] == 1 and fused["QLinearSoftmax"] == 0
    assert path.stat().st_size < 0.4 * file.stat().st_size
    assert agreement(path, file, scans) > 0.8
    named = metadata(path)["calibration_sha256"].split(",")
    links = sorted((class_view.parent / "train").rglob("*.png"))
    pictures = [
        np.asarray(Image.open(link).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255 for link in links
    ]
    hashes = {hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()[:12] for picture in pictures}
    assert len(set(named)) == 16 and set(named) <= hashes  # all of the training split


@pytest.mark.parametrize(("part", "convs", "gemms"), [("float_output", 26, 0), ("float", 25, 0)])
def test_the_head_can_stay_in_float(leaf: Leaf, part: Any, convs: int, gemms: int) -> None:
    fused = optimised(leaf(Int8Static(head=part, images=4)))
    assert (fused["QLinearConv"], fused["QGemm"], fused["Gemm"]) == (convs, gemms, 1)


def test_dynamic_int8_computes_the_linear_layer_too(leaf: Leaf, file: Path, scans: Path) -> None:
    path = leaf(Int8Dynamic())
    found = operators(path)
    assert (found["ConvInteger"], found["MatMulInteger"], found["Conv"], found["Gemm"]) == (26, 1, 0, 0)
    assert agreement(path, file, scans) > 0.8


@pytest.mark.parametrize("part", [Fp16(), Int16(images=16), Mixed(budget=0.2, images=16)])
def test_other_precisions_give_nearly_the_same_classes(leaf: Leaf, file: Path, scans: Path, part: Quantize) -> None:
    path = leaf(part)
    assert path.stat().st_size < 0.75 * file.stat().st_size
    assert agreement(path, file, scans) > 0.8
    stored = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if part.kind == "fp16" else onnx.TensorProto.INT8) in stored


@pytest.mark.parametrize("bits", [8, 4, 3, 2, 1])
@pytest.mark.parametrize("skip_ends", [True, False])
def test_weights_in_few_bits(leaf: Leaf, tmp_path: Path, bits: Any, skip_ends: bool) -> None:
    options = one_thread()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")  # with everything folded that can be,
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # not laid out anew
    path = leaf(WeightOnly(bits=bits, skip_ends=skip_ends))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in {"Conv", "FusedConv", "Gemm", "FusedGemm"}]
    levels = [
        max(len(np.unique(row)) for row in stored[node.input[1]].reshape(len(stored[node.input[1]]), -1))
        for node in nodes
        if node.input[1] in stored
    ]
    most = {8: 255, 4: 15, 3: 8, 2: 3, 1: 2}[bits]
    few = [count <= most for count in levels]
    assert len(few) == 27 and all(few[1:-1])
    if bits < 8:  # a channel of 8 bits can have as few levels as it has weights
        assert (few[0], few[-1]) == (not skip_ends, not skip_ends)


@pytest.mark.parametrize("bits", [4, 2])
def test_low_bit_weights_are_computed_in_8_bits(leaf: Leaf, file: Path, scans: Path, bits: Any) -> None:
    path = leaf(LowBit(bits=bits, skip_ends=False, images=16))
    fused = optimised(path)
    assert (fused["QLinearConv"], fused["QGemm"], fused["Conv"], fused["Gemm"]) == (26, 1, 0, 0)
    assert path.stat().st_size < {4: 0.25, 2: 0.19}[bits] * file.stat().st_size
    rounded = leaf(WeightOnly(bits=bits, skip_ends=False))
    assert agreement(path, rounded, scans) > 0.7  # of the same weights; a tenth would be chance
