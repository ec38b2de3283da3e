"""After training on a lattice every rounded weight lies on it, in the model, in a checkpoint and in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import parametrize
from ultralytics.nn.tasks import load_checkpoint

from search.pipeline import Inputs, shape, train, write_leaf
from search.stages.activation import swap_activation
from search.stages.export import export_onnx
from search.stages.precision.weights import quantize_weights
from search.stages.prune_layers import output_layers
from search.stages.qat import InputRange, Lattice, prepared, rounded_convs, settled
from spaces.recipe import (
    ChannelPrune,
    Export,
    Finetune,
    Fp32,
    Int8Qat,
    Int8Static,
    NMSparsify,
    Recipe,
    WeightOnly,
    WeightQat,
)
from tests.tiny import SIZE, answers, noise, onnx_answers, parameters, snapshot, weights

bits_each = pytest.mark.parametrize("bits", [8, 4, 3, 2, 1])


def trained(qat: WeightQat | Int8Qat, baseline: Path, data: Path, **fields: Any) -> nn.Module:
    recipe = Recipe(image_size=SIZE, qat=qat, **fields)
    inputs = Inputs(baseline=baseline, data=data)
    return train(shape(recipe, inputs), recipe, inputs)


@pytest.fixture(scope="module", params=[4, 3, 2, 1], ids=lambda bits: f"{bits} bits")
def case(request: pytest.FixtureRequest, baseline: Path, data: Path) -> tuple[Any, nn.Module]:
    """Bits, and a model that was trained with them for an epoch."""
    return request.param, trained(WeightQat(bits=request.param, epochs=1), baseline, data)


def lattice_size(weight: np.ndarray) -> int:
    return max(len(np.unique(channel)) for channel in weight.reshape(len(weight), -1))


@bits_each
def test_rounding_while_training_is_rounding_for_the_file(bits: int) -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    codes, scale = quantize_weights(weight.numpy(), bits)
    expected = codes * scale
    np.testing.assert_allclose(Lattice(bits)(weight).numpy(), expected, rtol=2e-5, atol=1e-7)


@bits_each
def test_the_gradient_passes_straight_through(bits: int) -> None:
    weight = torch.randn(2, 3, 1, 1, requires_grad=True)
    upstream = torch.randn(2, 3, 1, 1)
    Lattice(bits)(weight).backward(upstream)
    assert weight.grad is not None and torch.equal(weight.grad, upstream)


def test_input_ranges_are_moving_averages_and_steps_are_256(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    watcher = InputRange().train()
    batches = [rng.normal(1, 2, size=(4, 3)).astype(np.float32) for _ in range(5)]
    low, high = min(batches[0].min(), 0), max(batches[0].max(), 0)
    watcher(torch.from_numpy(batches[0]))
    for batch in batches[1:]:
        watcher(torch.from_numpy(batch))
        low, high = 0.95 * low + 0.05 * min(batch.min(), 0), 0.95 * high + 0.05 * max(batch.max(), 0)
    assert (watcher.low.item(), watcher.high.item()) == pytest.approx((low, high), rel=1e-5)
    x = np.linspace(-20, 20, 1001, dtype=np.float32)
    scale = (high - low) / 255
    zero = round(-low / scale)
    expected = (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale
    found = watcher.eval()(torch.from_numpy(x)).numpy()
    assert len(np.unique(found)) <= 256
    assert np.mean(np.abs(found - expected) > 1e-3) < 0.01  # ties may fall either way
    assert watcher.low.item() == pytest.approx(low, rel=1e-5)  # eval mode learns nothing


def test_weights_end_on_the_lattice_with_the_normalization_folded(
    case: tuple[Any, nn.Module], model: nn.Module
) -> None:
    bits, result = case
    rounded = rounded_convs(result, WeightQat(bits=bits))
    convs = {name: module for name, module in result.named_modules() if isinstance(module, nn.Conv2d)}
    left = {name for name in convs if name not in rounded}
    names = {id(module): name for name, module in convs.items()}
    last = {names[id(module)] for module in output_layers(result) if id(module) in names}
    assert left == {"model.0.conv", *last, "model.22.dfl.conv"} and len(last) == 6
    for name, conv in rounded.items():
        weight = conv.weight.detach().numpy()
        codes, scale = quantize_weights(weight, bits)
        assert (codes * scale).tobytes() == weight.tobytes(), name
        norm: Any = result.get_submodule(name.rpartition(".")[0]).bn
        assert (norm.weight == 1).all() and not norm.running_mean.any()
        assert (torch.rsqrt(norm.running_var + norm.eps) == 1).all()
    assert lattice_size(convs["model.0.conv"].weight.detach().numpy()) > 16
    assert weights(result) != weights(model)


def test_folding_changes_no_answer(model: nn.Module) -> None:
    """The answers with rounded weights and living normalization are those of the plain model that is returned."""
    before = snapshot(model)
    rounding = prepared(model, WeightQat(bits=4))
    inside = snapshot(rounding)
    plain = settled(rounding, WeightQat(bits=4))
    assert snapshot(model) == before and snapshot(rounding) == inside
    np.testing.assert_allclose(answers(plain, noise(2)), answers(rounding, noise(2)), rtol=1e-3, atol=1e-3)
    assert np.abs(answers(plain, noise(2)) - answers(model, noise(2))).max() > 0.01


def test_the_result_is_a_plain_model_that_reloads(
    case: tuple[Any, nn.Module], model: nn.Module, tmp_path: Path
) -> None:
    _, result = case
    assert [type(module) for module in result.modules()] == [
        type(module) for module in swap_activation(model, "silu").modules()
    ]
    assert list(result.state_dict()) == list(model.state_dict()) and parameters(result) == parameters(model)
    assert not [
        m for m in result.modules() if m._forward_hooks or m._forward_pre_hooks or parametrize.is_parametrized(m)
    ]
    torch.save({"model": result}, tmp_path / "model.pt")
    assert weights(load_checkpoint(tmp_path / "model.pt")[0]) == weights(result)


def test_the_file_holds_the_same_weights_to_the_last_bit(case: tuple[Any, nn.Module], tmp_path: Path) -> None:
    bits, result = case
    path = export_onnx(result, Export(fast_dfl=True), image_size=SIZE, path=tmp_path / "model.onnx")
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    in_file = sorted(stored[node.input[1]].tobytes() for node in graph.node if node.op_type == "Conv")
    rounded = rounded_convs(result, WeightQat(bits=bits)).values()
    for conv in rounded:
        assert conv.weight.detach().numpy().tobytes() in in_file
    sizes = [lattice_size(stored[node.input[1]]) for node in graph.node if node.op_type == "Conv"]
    allowed = {1: 2, 2: 3, 3: 8, 4: 15}[bits]
    assert sum(size <= allowed for size in sizes) >= len(rounded)
    np.testing.assert_allclose(onnx_answers(path, noise(1)), answers(result, noise(1)), rtol=1e-3, atol=1e-3)


def test_as_many_bits_store_the_training_without_loss(
    case: tuple[Any, nn.Module], baseline: Path, data: Path, tmp_path: Path
) -> None:
    bits, result = case
    inputs, qat = Inputs(baseline=baseline, data=data), WeightQat(bits=bits)
    files = [
        write_leaf(
            result, Recipe(image_size=SIZE, qat=qat, quantize=part), inputs, folder=tmp_path / "leaves" / part.kind
        )
        for part in (Fp32(), WeightOnly(bits=bits))
    ]
    assert files[1].stat().st_size < files[0].stat().st_size
    plain, packed = (onnx_answers(file, noise(3)) for file in files)
    np.testing.assert_allclose(packed, plain, rtol=1e-5, atol=1e-5)


def test_zeros_stay_zeros_on_the_grid(baseline: Path, data: Path) -> None:
    fields: dict[str, Any] = {"sparsify": NMSparsify(), "finetune": Finetune(epochs=1, batch=4)}
    sparse = trained(WeightQat(bits=4, epochs=1), baseline, data, **fields)
    for name, conv in rounded_convs(sparse, WeightQat(bits=4)).items():
        weight = conv.weight.detach().numpy()
        if weight.shape[1] % 4 == 0:
            kept = (weight != 0).reshape(len(weight), -1, 4, *weight.shape[2:]).sum(2)
            assert kept.max() <= 2, name


def test_the_same_seed_gives_the_same_weights_after_pruning_and_tuning(baseline: Path, data: Path) -> None:
    fields = {"prune": ChannelPrune(ratio=0.25, round_to=4), "finetune": Finetune(epochs=1, batch=4, swap_epochs=0)}
    one, two = (trained(WeightQat(bits=3, epochs=1), baseline, data, **fields) for _ in range(2))
    assert weights(one) == weights(two)
    assert all(lattice_size(c.weight.detach().numpy()) <= 8 for c in rounded_convs(one, WeightQat(bits=3)).values())


def test_int8_rounds_every_convolution_as_the_quantizer_will(baseline: Path, data: Path, tmp_path: Path) -> None:
    result = trained(Int8Qat(epochs=1), baseline, data)
    rounded = rounded_convs(result, Int8Qat())
    assert len(rounded) == sum(isinstance(m, nn.Conv2d) for m in result.modules()) - 1  # all but the box decoder
    assert not [m for m in result.modules() if isinstance(m, InputRange) or m._forward_pre_hooks]
    recipe = Recipe(image_size=SIZE, quantize=Int8Static(images=4))
    file = write_leaf(result, recipe, Inputs(baseline=baseline, data=data), folder=tmp_path / "leaf")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}
    nodes = {node.output[0]: node for node in onnx.load(file).graph.node}
    found = 0
    own = {quantize_weights(c.weight.detach().numpy(), 8)[0].tobytes() for c in rounded.values()}
    for node in onnx.load(file).graph.node:
        if node.op_type == "Conv":
            codes = stored[nodes[node.input[1]].input[0]]
            assert codes.dtype == np.int8
            found += codes.tobytes() in own
    assert found == len(rounded)


def test_epochs_are_counted_over_both_trainings(baseline: Path, data: Path) -> None:
    recipe = Recipe(image_size=SIZE, finetune=Finetune(epochs=2, batch=12), qat=WeightQat(epochs=1))
    inputs = Inputs(baseline=baseline, data=data)
    seen: list[tuple[int, int]] = []
    train(shape(recipe, inputs), recipe, inputs, lambda done, total, _: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert recipe.trains and Recipe(image_size=SIZE, qat=WeightQat()).trains and not Recipe(image_size=SIZE).trains


def test_bits_without_a_lattice_are_refused() -> None:
    with pytest.raises(ValueError, match="8, 4, 3, 2 or 1"):
        Recipe.model_validate({"image_size": SIZE, "qat": {"kind": "weights", "bits": 5}})
