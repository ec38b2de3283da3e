"""Precisions: what is stored in how many bits, what ONNX Runtime makes of it, and what the answers lose."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from torch import nn

from search.data import calibration_images
from search.stages.export import export_onnx
from search.stages.quantize import quantize
from spaces.recipe import Export, Fp16, Fp32, Int8Static
from tests.tiny import (
    OUTPUT,
    SIZE,
    branches,
    conv_shapes,
    downstream,
    files_below,
    metadata,
    noise,
    one_thread,
    onnx_answers,
    parameters,
    sha256,
    tiny_model,
)

ROOT = Path(__file__).resolve().parents[2]
HEAD = "model.22."
INT8 = Int8Static(images=6)
FLOAT_OUTPUT = Int8Static(images=6, head="float_output")
FLOAT_HEAD = Int8Static(images=6, head="float")
PARTS = {"fp32": Fp32(), "fp16": Fp16(), "int8": INT8, "float_output": FLOAT_OUTPUT, "float": FLOAT_HEAD}
heads = pytest.mark.parametrize("part", [INT8, FLOAT_OUTPUT, FLOAT_HEAD], ids=lambda part: part.head)
Precision = Fp32 | Fp16 | Int8Static
Quantized = Callable[[Precision], Path]


@pytest.fixture(scope="module")
def pictures(data: Path) -> list[np.ndarray]:
    return calibration_images(data, image_size=SIZE, count=8, seed=0)


@pytest.fixture(scope="module")
def quantized(fast: Path, pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """The baseline's file in a precision; each is made once."""
    folder, made = tmp_path_factory.mktemp("quantized"), dict[Precision, Path]()

    def make(part: Precision) -> Path:
        if part not in made:
            path = folder / f"{len(made)}.onnx"
            made[part] = quantize(fast, part, images=lambda count: pictures[:count], path=path)
        return made[part]

    return make


class Graph:
    """A quantized graph, by what makes and what takes each of its tensors."""

    def __init__(self, path: Path) -> None:
        self.nodes = list(onnx.load(path).graph.node)
        self.constants = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
        self.maker = {output: node for node in self.nodes for output in node.output}

    def value(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[name])

    def of_type(self, operator: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type == operator]

    def takers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [taker for taker in self.nodes if set(node.output) & set(taker.input)]

    def dequantized(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes the tensor ``name``, if one does."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def weights(self) -> dict[str, onnx.NodeProto]:
        """What dequantizes the weight of each 8-bit convolution, by the weight's name in the float file."""
        found = {node.input[1]: self.dequantized(node.input[1]) for node in self.of_type("Conv")}
        return {node.input[0].removesuffix("_quantized"): node for node in found.values() if node is not None}

    def in_eight_bits(self) -> set[str]:
        """The names of the nodes whose results are only used after they were quantized."""
        linear = {"QuantizeLinear", "DequantizeLinear"}
        return {
            node.name
            for node in self.nodes
            if node.op_type not in linear
            and (takers := self.takers(node))
            and {taker.op_type for taker in takers} == {"QuantizeLinear"}
        }


def last_convolutions(model: nn.Module) -> set[str]:
    """The names of the weights of the head's last convolutions."""
    ends = {id(module) for part in branches(model) for module in part}
    return {f"{name}.weight" for name, module in model.named_modules() if id(module) in ends}


def head_parts(model: nn.Module, path: Path) -> tuple[set[str], set[str], set[str]]:
    """The names of the head's nodes in a float file: before its last convolutions, those, and the decode step."""
    graph, ends = onnx.load(path).graph, last_convolutions(model)
    convolutions = [node for node in graph.node if node.op_type == "Conv" and node.input[1].startswith(HEAD)]
    last = [node for node in convolutions if node.input[1] in ends]
    everything = {node.name for node in [*convolutions, *downstream(graph, convolutions)]}
    decode = {node.name for node in downstream(graph, last)}
    names = {node.name for node in last}
    return everything - decode - names, names, decode


def test_the_source_is_left_alone_and_files_are_the_same_each_time(
    fast: Path, quantized: Quantized, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    held, before = copy.deepcopy(pictures), sha256(fast)
    for name, part in PARTS.items():
        path = tmp_path / "deep" / f"{name}.onnx"
        assert quantize(fast, part, images=lambda count: pictures[:count], path=path) == path
        assert sha256(path) == sha256(quantized(part))
    assert sha256(fast) == before
    assert set(files_below(tmp_path)) == {f"deep/{name}.onnx" for name in PARTS}
    assert all(np.array_equal(picture, same) for picture, same in zip(pictures, held, strict=True))


def test_another_process_writes_the_same_bytes(
    fast: Path, quantized: Quantized, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    np.save(tmp_path / "pictures.npy", np.stack(pictures))
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "import numpy\n"
        "from search.stages.quantize import quantize\n"
        "from spaces.recipe import Int8Static\n"
        "pictures = list(numpy.load('pictures.npy'))\n"
        f"quantize(Path({str(fast)!r}), Int8Static.model_validate_json({INT8.model_dump_json()!r}),\n"
        "         images=lambda count: pictures[:count], path=Path('model.onnx'))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert sha256(tmp_path / "model.onnx") == sha256(quantized(INT8))


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
def test_the_file_is_valid_and_keeps_what_it_tells_and_its_shapes(
    fast: Path, quantized: Quantized, part: Precision
) -> None:
    path = quantized(part)
    onnx.checker.check_model(str(path), full_check=True)
    told = metadata(path)
    assert ("calibration_sha256" in told) == isinstance(part, Int8Static)
    told.pop("calibration_sha256", None)
    assert told == metadata(fast)
    session = onnxruntime.InferenceSession(str(path), one_thread(), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("images", [1, 3, SIZE, SIZE], "tensor(float)")
    assert (given.name, given.shape, given.type) == ("output0", list(OUTPUT), "tensor(float)")


def test_only_eight_bits_ask_for_pictures_and_for_as_many_as_the_recipe_says(
    fast: Path, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    asked: list[int] = []

    def images(count: int) -> list[np.ndarray]:
        asked.append(count)
        return pictures[:count]

    for part in (Fp32(), Fp16()):
        quantize(fast, part, images=images, path=tmp_path / "model.onnx")
    assert asked == []
    quantize(fast, Int8Static(images=3), images=images, path=tmp_path / "model.onnx")
    assert asked == [3]


def test_a_failure_leaves_no_file(fast: Path, tmp_path: Path) -> None:
    def images(count: int) -> list[np.ndarray]:
        return [np.zeros((1, 3, 7, 7), np.float32)] * count  # not what the graph takes

    with pytest.raises(Exception, match="invalid dimensions"):
        quantize(fast, INT8, images=images, path=tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_fp32_is_the_source(fast: Path, quantized: Quantized) -> None:
    assert quantized(Fp32()).read_bytes() == fast.read_bytes()


def test_sizes_are_a_half_and_about_a_quarter(pictures: list[np.ndarray], tmp_path: Path) -> None:
    wide = tiny_model(width=0.25)  # YOLOv8n: next to its weights the graph is small
    source = export_onnx(wide, Export(), image_size=SIZE, path=tmp_path / "fp32.onnx")
    size = source.stat().st_size
    assert size == pytest.approx(4 * parameters(wide), rel=0.02)
    for part, share in ((Fp16(), 0.5), (INT8, 0.25)):
        path = quantize(source, part, images=lambda count: pictures[:count], path=tmp_path / "model.onnx")
        assert share - 0.01 < path.stat().st_size / size < share + 0.03


def test_fp16_stores_the_weights_in_16_bits_and_answers_the_same(
    model: nn.Module, fast: Path, quantized: Quantized
) -> None:
    graph = Graph(quantized(Fp16()))
    half = {name for name, tensor in graph.constants.items() if tensor.data_type == TensorProto.FLOAT16}
    assert half >= set(conv_shapes(fast))
    *_, decode = head_parts(model, fast)
    single = {name for name, tensor in graph.constants.items() if tensor.data_type == TensorProto.FLOAT}
    users = {node.name for node in graph.nodes if single & set(node.input) and node.op_type != "Resize"}
    assert users <= decode  # Resize takes its scales in 32 bits
    exact, found = onnx_answers(fast, noise(4)), onnx_answers(quantized(Fp16()), noise(4))
    assert not np.array_equal(found, exact)
    assert np.abs(found - exact)[:, :4].max() < 0.5  # px
    assert np.abs(found - exact)[:, 4:].max() < 0.005


def test_fp16_casts_only_where_precisions_meet(quantized: Quantized) -> None:
    graph = Graph(quantized(Fp16()))
    kinds = {node.output[0]: node.attribute[0].i for node in graph.of_type("Cast")}
    assert not [node for node in graph.of_type("Cast") if node.input[0] in kinds]  # none after another
    assert graph.maker["output0"].op_type != "Cast"  # the boxes were never rounded to 16 bits
    assert all(graph.takers(node) for node in graph.of_type("Cast"))  # none for nothing


@heads
def test_int8_answers_stay_close(
    fast: Path, quantized: Quantized, pictures: list[np.ndarray], part: Int8Static
) -> None:
    exact, found = onnx_answers(fast, pictures), onnx_answers(quantized(part), pictures)
    assert not np.array_equal(found, exact)
    assert np.abs(found - exact)[:, :4].mean() < 1  # px
    assert np.abs(found - exact)[:, 4:].mean() < 0.01
    assert np.corrcoef(found[:, 4:].ravel(), exact[:, 4:].ravel())[0, 1] > 0.999


@heads
def test_int8_weights_are_signed_and_activations_unsigned(quantized: Quantized, part: Int8Static) -> None:
    graph = Graph(quantized(part))
    for name, node in graph.weights().items():
        assert graph.constants[node.input[0]].data_type == TensorProto.INT8, name
        assert not graph.value(node.input[2]).any()  # symmetric
    points = [graph.constants[node.input[2]] for node in graph.of_type("QuantizeLinear")]
    assert points and {point.data_type for point in points} == {TensorProto.UINT8}
    biases = {node.input[2]: graph.dequantized(node.input[2]) for node in graph.of_type("Conv")}
    stored = [graph.constants[node.input[0]].data_type for node in biases.values() if node is not None]
    assert len(stored) == len(graph.weights()) and set(stored) == {TensorProto.INT32}


@pytest.mark.parametrize("per_channel", [True, False])
def test_int8_weights_are_within_half_a_step_of_the_float_ones(
    fast: Path, quantized: Quantized, per_channel: bool
) -> None:
    graph = Graph(quantized(INT8.model_copy(update={"per_channel": per_channel})))
    exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(fast).graph.initializer}
    assert graph.weights().keys() == conv_shapes(fast).keys()
    for name, node in graph.weights().items():
        scale = graph.value(node.input[1])
        assert scale.shape == ((exact[name].shape[0],) if per_channel else ())
        steps = scale.reshape(-1, 1, 1, 1)
        found = graph.value(node.input[0]) * steps
        assert (np.abs(found - exact[name]) <= 0.501 * steps).all()


def test_the_choice_for_the_head_decides_over_exactly_its_part(
    model: nn.Module, fast: Path, quantized: Quantized
) -> None:
    every, last = set(conv_shapes(fast)), last_convolutions(model)
    in_head = {name for name in every if name.startswith(HEAD)}
    assert (len(every), len(in_head), len(last)) == (63, 18, 6)
    graphs = {part.head: Graph(quantized(part)) for part in (INT8, FLOAT_OUTPUT, FLOAT_HEAD)}
    assert graphs["int8"].weights().keys() == every
    assert graphs["float_output"].weights().keys() == every - last
    assert graphs["float"].weights().keys() == every - in_head
    hidden, ends, decode = head_parts(model, fast)
    reduced = {name: graph.in_eight_bits() for name, graph in graphs.items()}
    assert reduced["int8"] - reduced["float_output"] == ends
    assert reduced["int8"] - reduced["float"] == ends | hidden
    assert reduced["float"] < reduced["float_output"] < reduced["int8"]
    assert not reduced["int8"] & decode


@heads
def test_the_decode_step_is_in_float(model: nn.Module, fast: Path, quantized: Quantized, part: Int8Static) -> None:
    *_, decode = head_parts(model, fast)
    graph = Graph(quantized(part))
    assert decode <= {node.name for node in graph.nodes}
    for node in graph.nodes:
        if node.name in decode:
            assert not [taker for taker in graph.takers(node) if taker.op_type == "QuantizeLinear"]
            constants = [graph.constants[name] for name in node.input if name in graph.constants]
            assert not {constant.data_type for constant in constants} & {TensorProto.INT8, TensorProto.UINT8}


def optimised(path: Path, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs for a file."""
    options = one_thread()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@heads
def test_onnx_runtime_fuses_every_8_bit_convolution(
    fast: Path, quantized: Quantized, tmp_path: Path, part: Int8Static
) -> None:
    run = optimised(quantized(part), tmp_path)
    small = len(Graph(quantized(part)).weights())
    assert run["QLinearConv"] == small
    assert run["Conv"] + run["FusedConv"] == len(conv_shapes(fast)) - small
    # What is left of the conversions stands where 8 bits and float meet: the input, and each end of the branches.
    assert run["QuantizeLinear"] == 1
    assert run["DequantizeLinear"] <= 6


def test_the_float_file_runs_no_8_bit_operator(quantized: Quantized, tmp_path: Path) -> None:
    assert not [name for name in optimised(quantized(Fp32()), tmp_path) if name.startswith("QLinear")]


def ranges(fast: Path, path: Path, calibrator: str) -> dict[str, float]:
    """The step of every quantized activation that a calibrator chooses for a dark picture and three others."""
    images = [0.2 * noise(1, seed=1)[0], *noise(3, seed=2)]
    part = Int8Static.model_validate({"calibrator": calibrator, "images": len(images)})
    graph = Graph(quantize(fast, part, images=lambda count: images[:count], path=path))
    return {node.input[0]: float(graph.value(node.input[1])) for node in graph.of_type("QuantizeLinear")}


@pytest.mark.parametrize(("calibrator", "share"), [("percentile", 0.5), ("entropy", 0.0)])
def test_other_calibrators_cut_off_what_minmax_keeps(fast: Path, tmp_path: Path, calibrator: str, share: float) -> None:
    widest = ranges(fast, tmp_path / "model.onnx", "minmax")
    chosen = ranges(fast, tmp_path / "model.onnx", calibrator)
    assert chosen.keys() == widest.keys()
    assert all(chosen[name] <= widest[name] * 1.000001 for name in widest)
    assert sum(chosen[name] < widest[name] for name in widest) > share * len(widest)


def test_the_pictures_decide_the_ranges(fast: Path, quantized: Quantized, tmp_path: Path) -> None:
    dark = quantize(fast, INT8, images=lambda n: [0.1 * image for image in noise(n)], path=tmp_path / "dark.onnx")
    graphs = [Graph(dark), Graph(quantized(INT8))]
    inputs = [next(node for node in graph.of_type("QuantizeLinear") if node.input[0] == "images") for graph in graphs]
    low, high = (float(graph.value(node.input[1])) for graph, node in zip(graphs, inputs, strict=True))
    assert low == pytest.approx(0.1 * high, rel=0.1)


def test_the_softmax_of_the_plain_file_stays_in_float_too(
    model: nn.Module, plain: Path, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    path = quantize(plain, INT8, images=lambda count: pictures[:count], path=tmp_path / "model.onnx")
    every = set(conv_shapes(plain))
    decoder = {name for name in every if ".dfl." in name}
    assert len(decoder) == 1
    assert Graph(path).weights().keys() == every - decoder
    *_, decode = head_parts(model, plain)
    assert not Graph(path).in_eight_bits() & decode
    exact, found = onnx_answers(plain, pictures), onnx_answers(path, pictures)
    assert np.abs(found - exact)[:, :4].mean() < 1  # px
