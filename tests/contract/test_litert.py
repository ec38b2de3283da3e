"""LiteRT files: what the runtime computes must be what PyTorch computes, and int8 must be int8.

The converter and the runtime are in an environment of their own, of a gigabyte; where it was not made these tests are
skipped, but for the slow one that makes it.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn.backends.base import BaseBackend
from ultralytics.nn.modules import Conv

from search.environments import LITERT, ROOT_VARIABLE, find_python, python_of
from search.errors import UserError
from search.stages import litert
from search.stages.activation import swap_activation
from search.stages.export import export_onnx
from search.stages.litert import write_litert
from search.stages.norm import reestimate_norms
from search.stages.precision.calibration import fingerprints
from search.stages.prune_order import prune_untrained
from search.stages.quantize import quantize
from spaces.parts.quantize import Fp16, Int16, LowBit, Mixed, Quantize
from spaces.recipe import ChannelPrune, Export, Fp32, Int8Dynamic, Int8Static, WeightOnly
from tests.tiny import CLASSES, OUTPUT, SHORT, SIZE, answers, head, noise, onnx_answers, snapshot, tiny_model
from tests.tiny_classifier import SIDE, tiny_classifier

IMAGES = noise(3)
CALIBRATION = 8
INT8 = Int8Static(images=CALIBRATION)

# Runs in the environment: FILE IMAGES ANSWERS OPERATORS.
RUN = """
import json, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
file, images, answers, operators = sys.argv[1:]
runtime = Interpreter(file, num_threads=1)
runtime.allocate_tensors()
(entry,), (leave,) = runtime.get_input_details(), runtime.get_output_details()
found = []
for image in np.load(images):
    runtime.set_tensor(entry["index"], image)
    runtime.invoke()
    found.append(runtime.get_tensor(leave["index"]))
np.save(answers, np.stack(found))
plain = Interpreter(file, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
types = {tensor["index"]: np.dtype(tensor["dtype"]).name for tensor in plain.get_tensor_details()}
content = [(o["op_name"], [types.get(index) for index in o["inputs"]]) for o in plain._get_ops_details()]
json.dump(content, open(operators, "w"))
"""


class File:
    """A file as the runtime has it: its answers (N, …) to the images, and each operator with the types it reads."""

    def __init__(self, path: Path, python: Path, images: list[np.ndarray] = IMAGES) -> None:
        names = [path.with_suffix(suffix) for suffix in (".in.npy", ".out.npy", ".json")]
        np.save(names[0], np.stack(images))
        subprocess.run([str(python), "-I", "-c", RUN, str(path), *map(str, names)], check=True, capture_output=True)
        self.path = path
        self.answers = np.load(names[1])[:, 0]
        self.operators: list[tuple[str, list[str]]] = json.loads(names[2].read_text())

    def types(self, operator: str) -> Counter[str]:
        """How many of an operator compute in which type: that of the activation it reads, and of its weights."""
        return Counter("/".join(read[:2]) for name, read in self.operators if name == operator)


@pytest.mark.slow
def test_the_environment_can_be_made_and_has_the_converter() -> None:
    command = [str(python_of(LITERT)), "-I", "-c", "import litert_torch, ai_edge_quantizer, ai_edge_litert"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def python() -> Path:
    found = find_python(LITERT)
    if found is None:
        pytest.skip(f"the environment {LITERT.name} was not made here; the slow tests make it")
    return found


@pytest.fixture(scope="module")
def calm() -> nn.Module:
    """A pruned model of ReLUs, whose C2f blocks have unequal halves, and whose answers depend on the picture."""
    part = ChannelPrune(ratio=0.3, scope="global", round_to=1)
    model = prune_untrained(swap_activation(tiny_model(), "relu"), part, image_size=SIZE, batches=[], cache=None)
    reestimate_norms(model, [torch.from_numpy(np.concatenate(noise(16, seed=1)))])
    return model.eval()


Write = Callable[[Quantize], File]


@pytest.fixture(scope="module")
def write(python: Path, calm: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Writes the model in a precision, once."""
    files: dict[Quantize, File] = {}

    def written(part: Quantize) -> File:
        if part not in files:
            folder = tmp_path_factory.mktemp("litert")
            path = write_litert(calm, part, image_size=SIZE, images=noise, path=folder / "new" / "model.tflite")
            assert [file.name for file in path.parent.iterdir()] == ["model.tflite"]
            files[part] = File(path, python)
        return files[part]

    return written


@pytest.fixture(scope="module")
def expected(calm: nn.Module) -> np.ndarray:
    found = answers(calm, IMAGES)
    assert np.abs(found[1:, :4] - found[:1, :4]).max() > 5  # they depend on the picture, by pixels
    assert np.abs(found[1:, 4:] - found[:1, 4:]).max() > 0.1
    return found


Errors = tuple[np.ndarray, np.ndarray]  # of each box in pixels, of each score


def errors(found: np.ndarray, expected: np.ndarray) -> Errors:
    difference = np.abs(found - expected)
    return difference[:, :4], difference[:, 4:]


def apart(file: File, expected: np.ndarray) -> Errors:
    """How far the file is off. It has boxes in fractions."""
    assert file.answers.shape == (len(IMAGES), *OUTPUT[1:])
    return errors(file.answers * np.array([SIZE] * 4 + [1] * CLASSES)[:, None], expected)


@pytest.fixture(scope="module")
def rounding(calm: nn.Module, expected: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """How far ONNX Runtime's int8 file of the same model is off: what 8 bits cost a model that was not trained."""
    folder = tmp_path_factory.mktemp("onnx")
    source = export_onnx(calm, Export(), image_size=SIZE, path=folder / "float.onnx")
    return errors(onnx_answers(quantize(source, INT8, images=noise, path=folder / "int8.onnx"), IMAGES), expected)


def assert_near(file: File, expected: np.ndarray, rounding: Errors) -> None:
    """A third more than what ONNX Runtime's file is off, and not nothing."""
    for found, usual in zip(apart(file, expected), rounding, strict=True):
        assert 0 < found.mean() < 4 / 3 * usual.mean()


def convolutions(model: nn.Module) -> int:
    """Those with trained weights: all but the decoder's."""
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) - 1


def test_the_float_file_answers_as_pytorch_does(write: Write, calm: nn.Module, expected: np.ndarray) -> None:
    before = snapshot(calm)
    boxes, scores = apart(write(Fp32()), expected)
    assert boxes.max() < 1e-2
    assert scores.max() < 1e-4
    assert snapshot(calm) == before
    assert set(write(Fp32()).types("CONV_2D")) == {"float32/float32"}


def test_int8_computes_every_trained_layer_in_int8_and_the_decoder_in_float(
    write: Write, calm: nn.Module, expected: np.ndarray, rounding: Errors
) -> None:
    file = write(INT8)
    assert file.types("CONV_2D") == {"int8/int8": convolutions(calm), "float32/float32": 1}
    for operator in ("SOFTMAX", "LOGISTIC", "SUB"):
        assert {types.split("/")[0] for types in file.types(operator)} == {"float32"}
    assert file.types("DEQUANTIZE") == {"int8": 6}  # one for each raw output of the head: none in between
    assert file.types("QUANTIZE")["float32"] == 1  # the image
    assert_near(file, expected, rounding)


def test_the_whole_head_stays_in_float_if_asked(
    write: Write, calm: nn.Module, expected: np.ndarray, rounding: Errors
) -> None:
    file = write(INT8.model_copy(update={"head": "float"}))
    layers = convolutions(head(calm))
    assert layers == 18
    assert file.types("CONV_2D") == {"int8/int8": convolutions(calm) - layers, "float32/float32": 1 + layers}
    assert_near(file, expected, rounding)


def test_weights_alone_are_in_8_bits_but_for_the_ends(
    write: Write, calm: nn.Module, expected: np.ndarray, rounding: Errors
) -> None:
    file = write(WeightOnly(bits=8))
    assert file.types("DEQUANTIZE") == {"int8": convolutions(calm) - 7}  # a weight each
    assert set(file.types("CONV_2D")) == {"float32/float32"}
    assert_near(file, expected, rounding)


def test_dynamic_ranges_read_floats_and_hold_int8_weights(
    write: Write, calm: nn.Module, expected: np.ndarray, rounding: Errors
) -> None:
    file = write(Int8Dynamic())
    assert file.types("CONV_2D") == {"float32/int8": convolutions(calm), "float32/float32": 1}
    assert_near(file, expected, rounding)


def test_ultralytics_reads_its_metadata_and_the_calibration_images(write: Write) -> None:
    known = BaseBackend.read_metadata(write(INT8).path)
    assert (known["task"], known["stride"], known["imgsz"], known["names"]["3"]) == ("detect", 32, [SIZE, SIZE], "3")
    assert known["calibration_sha256"] == fingerprints(noise(CALIBRATION))["calibration_sha256"]
    assert "calibration_sha256" not in BaseBackend.read_metadata(write(Fp32()).path)


def test_the_ranges_are_those_of_the_calibration_images(write: Write, calm: nn.Module, expected: np.ndarray) -> None:
    """Ranges of black pictures clip all others."""

    def black(count: int) -> list[np.ndarray]:
        return [np.zeros_like(IMAGES[0])] * count

    python = python_of(LITERT)
    path = write(INT8).path.with_name("black.tflite")
    dark = File(write_litert(calm, INT8, image_size=SIZE, images=black, path=path), python)
    assert apart(dark, expected)[0].mean() > 4 / 3 * apart(write(INT8), expected)[0].mean()


REFUSED: list[Quantize] = [
    Fp16(),
    Int8Static(calibrator="entropy"),
    Int8Static(symmetric=True),
    Int16(),
    WeightOnly(bits=4),
    LowBit(bits=4),
    Mixed(budget=0.5),
]


@pytest.mark.parametrize("part", REFUSED, ids=lambda part: part.kind)
def test_other_precisions_are_refused_before_anything_is_made(
    part: Quantize, calm: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "environments"))
    with pytest.raises(UserError, match=f"litert cannot carry .*{part.kind}.*; it can fp32, int8 with calibrator"):
        write_litert(calm, part, image_size=SIZE, images=noise, path=tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_hardswish_is_made_of_what_has_fast_kernels_in_int8(python: Path, tmp_path: Path) -> None:
    model = swap_activation(tiny_model(architecture=SHORT), "hardswish")
    before = snapshot(model)
    split = litert.split_hardswish(model)
    assert snapshot(model) == before
    np.testing.assert_allclose(answers(split, IMAGES), answers(model, IMAGES), atol=1e-3)
    file = File(write_litert(model, INT8, image_size=SIZE, images=noise, path=tmp_path / "model.tflite"), python)
    assert not file.types("HARD_SWISH")
    activations = sum(isinstance(module, Conv) for module in model.modules())
    assert file.types("MUL")["int8/int8"] == 2 * activations


def test_the_converter_s_last_words_are_passed_on(python: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)converter failed.*No such file.*settings\.json"):
        litert._run(python, tmp_path)


def test_a_classifier_has_its_layers_in_int8_and_its_softmax_in_float(python: Path, tmp_path: Path) -> None:
    model, images = tiny_classifier(), noise(4, size=SIDE)
    with torch.no_grad():
        expected = np.concatenate([model(torch.from_numpy(image))[0].numpy() for image in images])
    path = write_litert(model, INT8, image_size=SIDE, images=lambda _: images, path=tmp_path / "model.tflite")
    file = File(path, python, images)
    source = export_onnx(model, Export(), image_size=SIDE, path=tmp_path / "float.onnx")
    usual = onnx_answers(quantize(source, INT8, images=lambda _: images, path=tmp_path / "int8.onnx"), images)
    assert 0 < np.abs(file.answers - expected).mean() < 4 / 3 * np.abs(usual - expected).mean()
    assert file.types("FULLY_CONNECTED") == {"int8/int8": 1}
    assert file.types("SOFTMAX") == {"float32": 1}
