"""The last rewrites of a file: the same bits out of fewer bytes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from search.pipeline import Inputs, write_leaf
from search.stages.compact import compact
from search.stages.export import finish_onnx
from search.stages.quantize import quantize
from search.stages.sparse import store_sparse
from spaces.parts.quantize import Quantize
from spaces.recipe import Export, Fp16, Fp32, Int8Dynamic, Int8Static, LowBit, Recipe, WeightOnly
from tests.onnx_look import CONVS, array, conv_weights, optimised, stored, with_weights
from tests.tiny import SIZE, metadata, noise, onnx_answers, sha256

Leaf = Callable[[Quantize], Path]
PARTS: list[Quantize] = [
    Fp32(),
    Fp16(),
    Int8Static(images=4),
    Int8Dynamic(),
    WeightOnly(bits=4),
    WeightOnly(bits=3),
    LowBit(bits=1, images=4),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.kind}{getattr(part, 'bits', '')}")
def test_a_compact_file_is_smaller_and_gives_the_same_bits(leaf: Leaf, part: Quantize, tmp_path: Path) -> None:
    source = leaf(part)
    before = sha256(source)
    path = finish_onnx(source, Export(compact=True), path=tmp_path / "model.onnx")
    assert sha256(source) == before
    assert np.array_equal(onnx_answers(path, noise(2)), onnx_answers(source, noise(2)))
    assert optimised(path) == optimised(source)
    assert path.stat().st_size < source.stat().st_size - 50_000
    model = onnx.load(path)
    onnx.checker.check_model(model)
    entries = [tensor.SerializeToString() for tensor in nameless(model)]
    assert len(set(entries)) == len(entries)
    names = {tensor.name for tensor in model.graph.initializer} | {name for n in model.graph.node for name in n.output}
    assert max(len(name) for name in names - {"output0"}) <= 3
    again = finish_onnx(source, Export(compact=True), path=tmp_path / "again.onnx")
    assert sha256(again) == sha256(path)


def nameless(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in model.graph.initializer]
    for tensor in tensors:
        tensor.ClearField("name")
    return tensors


def test_ultralytics_reads_a_compact_file_as_before(leaf: Leaf, tmp_path: Path) -> None:
    from ultralytics.nn.autobackend import AutoBackend

    source = leaf(Int8Static(images=4))
    path = finish_onnx(source, Export(compact=True), path=tmp_path / "model.onnx")
    one, two = AutoBackend(str(path)), AutoBackend(str(source))
    for name in ("names", "stride", "task", "imgsz", "batch", "channels", "end2end"):
        assert getattr(one, name) == getattr(two, name)
    assert metadata(path) == {
        key: value
        for key, value in metadata(source).items()
        if key not in {"author", "date", "description", "docs", "version"}
    }
    assert "calibration_sha256" in metadata(path) and "license" in metadata(path)


def test_compacting_twice_is_compacting_once(leaf: Leaf) -> None:
    once = compact(onnx.load(leaf(Int8Static(images=4))))
    before = once.SerializeToString(deterministic=True)
    assert compact(once).SerializeToString(deterministic=True) == before == once.SerializeToString(deterministic=True)


def masked(source: Path, path: Path, *, zeros: float) -> Path:
    """The file with a share of each convolution's weights set to zero, at random."""
    rng = np.random.default_rng(0)
    weights = {name: w * (rng.random(w.shape) >= zeros) for name, w in conv_weights(source).items()}
    return with_weights(source, weights, path)


@pytest.mark.parametrize(
    ("part", "bits"), [(Fp32(), 32), (Fp16(), 16), (Int8Static(images=4), 8)], ids=["fp32", "fp16", "int8"]
)
@pytest.mark.parametrize("zeros", [0.5, 0.9])
def test_sparse_storage_is_smaller_and_gives_the_same_answers(
    lively: Path, part: Quantize, bits: int, zeros: float, tmp_path: Path
) -> None:
    pruned = masked(lively, tmp_path / "pruned.onnx", zeros=zeros)
    dense = quantize(pruned, part, images=noise, path=tmp_path / "dense.onnx")
    before = sha256(dense)
    path = finish_onnx(dense, Export(sparse=True), path=tmp_path / "sparse.onnx")
    assert sha256(dense) == before
    assert np.array_equal(onnx_answers(path, noise(2)), onnx_answers(dense, noise(2)))
    assert optimised(path) == optimised(dense)  # all of the unpacking is folded
    count = sum(weight.size for weight in conv_weights(pruned).values())
    saved = count * (bits - 1 - bits * (1 - zeros)) / 8
    assert dense.stat().st_size - path.stat().st_size == pytest.approx(saved, rel=0.1)
    tensors = stored(path)
    for node in (node for node in onnx.load(path).graph.node if node.op_type == "unpack_sparse"):
        mask, values, shape = (array(tensors[name]) for name in node.input)
        flags = [int(mask[index // 8]) >> (7 - index % 8) & 1 for index in range(int(np.prod(shape)))]
        assert values[0] == 0 and np.count_nonzero(values) == len(values) - 1 == sum(flags)


def test_sparse_weights_decode_to_the_dense_ones(lively: Path, tmp_path: Path) -> None:
    pruned = masked(lively, tmp_path / "pruned.onnx", zeros=0.8)
    before = onnx.load(pruned).SerializeToString(deterministic=True)
    model = onnx.load(pruned)
    tensors = {tensor.name: tensor for tensor in store_sparse(model).graph.initializer}
    assert model.SerializeToString(deterministic=True) == before
    for name, weight in stored(pruned).items():
        if f"{name}_mask" not in tensors:
            assert numpy_helper.to_array(tensors[name]).tobytes() == array(weight).tobytes()
            continue
        flags = np.unpackbits(array(tensors[f"{name}_mask"]))[: array(weight).size].astype(bool)
        found = np.zeros(flags.shape, np.float32)
        found[flags] = array(tensors[f"{name}_values"])[1:]
        assert np.array_equal(found, array(weight).ravel())
    assert sum(name.endswith("_mask") for name in tensors) > CONVS - 5


def test_what_has_no_zeros_stays_dense(lively: Path, leaf: Leaf) -> None:
    for path in (lively, leaf(Int8Static(images=4)), leaf(WeightOnly(bits=1)), leaf(LowBit(bits=1, images=4))):
        model = onnx.load(path)
        assert store_sparse(model).SerializeToString() == model.SerializeToString()


def test_leaves_share_one_float_file_whatever_is_done_last(model: nn.Module, baseline: Path, tmp_path: Path) -> None:
    inputs = Inputs(baseline=baseline, data=baseline)
    sizes: list[int] = []
    for export in (Export(), Export(compact=True), Export(compact=True, sparse=True)):
        recipe = Recipe(image_size=SIZE, quantize=WeightOnly(bits=4), export=export)
        path = write_leaf(model, recipe, inputs, folder=tmp_path / recipe.id)
        sizes.append(path.stat().st_size)
    assert len(list(tmp_path.glob("float-*.onnx"))) == 1
    assert sizes[1] < sizes[0] and sizes[2] == sizes[1]
