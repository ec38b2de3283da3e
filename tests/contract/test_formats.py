"""Other formats: each file is run by its own runtime and must give what the PyTorch model gives.

Boxes are compared in pixels. The models' answers differ by tens of pixels from picture to picture, so an output that
ignores the picture, or the weights, does not pass.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import Tensor, nn

from search import apply, formats
from search.apply import apply_recipe
from search.errors import UserError
from search.formats import FORMATS, Format
from search.stages.activation import swap_activation
from search.stages.formats import NO_CHECKS, export_format
from search.stages.norm import reestimate_norms
from search.stages.prune_order import prune_untrained
from search.stages.quantize import quantize
from search.stages.structure import STRUCTURES, change_structure
from spaces.recipe import ChannelPrune, Finetune, Int8Static, Part, Recipe
from tests.tiny import CLASSES, SIZE, answers, files_below, noise, onnx_answers, snapshot, tiny_model

ROOT = Path(__file__).resolve().parents[2]
IMAGES = noise(3)
PACKAGES = {"onnx": "onnx", "torchscript": "torch", "openvino": "openvino", "ncnn": "ncnn"}
NAMES = {
    "onnx": ["model.onnx"],
    "torchscript": ["model.torchscript"],
    "openvino": [f"model_openvino_model/{name}" for name in ("metadata.yaml", "model.bin", "model.xml")],
    "ncnn": [f"model_ncnn_model/{name}" for name in ("metadata.yaml", "model.ncnn.bin", "model.ncnn.param")],
}
runnable = pytest.mark.parametrize("name", PACKAGES)


def torchscript_answers(path: Path) -> np.ndarray:
    module = torch.jit.load(str(path))
    return np.concatenate([module(torch.from_numpy(image)).numpy() for image in IMAGES])


def compiled(path: Path) -> Any:
    """A file as OpenVINO runs it on a CPU, in 32 bits where it is told nothing else."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    openvino = pytest.importorskip("openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return openvino.Core().compile_model(path, "CPU", settings)


def openvino_answers(path: Path) -> np.ndarray:
    model = compiled(path / "model.xml" if path.is_dir() else path)
    return np.concatenate([model(image)[0] for image in IMAGES])


def ncnn_answers(path: Path) -> np.ndarray:
    ncnn = pytest.importorskip("ncnn")
    net = ncnn.Net()
    net.opt.num_threads = 1
    for option in ("use_vulkan_compute", "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)
    assert net.load_param(str(path / "model.ncnn.param")) == net.load_model(str(path / "model.ncnn.bin")) == 0
    found: list[np.ndarray] = []
    for image in IMAGES:
        with net.create_extractor() as extractor:
            extractor.input("in0", ncnn.Mat(image[0]))
            found.append(np.array(extractor.extract("out0")[1]))
    return np.stack(found)


RUN: dict[str, Callable[[Path], np.ndarray]] = {
    "onnx": lambda path: onnx_answers(path, IMAGES),
    "torchscript": torchscript_answers,
    "openvino": openvino_answers,
    "ncnn": ncnn_answers,
}


def written(model: nn.Module, name: str, folder: Path, **arguments: Any) -> Path:
    pytest.importorskip(PACKAGES[name])
    return export_format(model, name, image_size=SIZE, folder=folder, **arguments)


def awake(model: nn.Module) -> nn.Module:
    """A copy whose answers depend on the picture: batch norms as on pictures of noise, no weight all zero."""
    copy = deepcopy(model)
    torch.manual_seed(0)
    for parameter in copy.parameters():
        if not parameter.any():  # attention starts as the identity
            nn.init.normal_(parameter, std=0.3)
    for module in copy.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data *= 0.3
            module.bias.data *= 0.3
    reestimate_norms(copy, [torch.from_numpy(np.concatenate(noise(16, seed=1)))])
    return copy.eval()


@pytest.fixture(scope="module")
def pruned() -> nn.Module:
    """A model whose C2f blocks have unequal halves, which Ultralytics has no class for."""
    part = ChannelPrune(ratio=0.4, scope="global", round_to=1)
    pruned = prune_untrained(tiny_model(), part, image_size=SIZE, batches=[], cache=None)
    assert any(type(module).__module__.startswith("search.") for module in pruned.modules())
    return awake(pruned)


@pytest.fixture(scope="module")
def calm() -> nn.Module:
    """A model of ReLUs, in which rounded weights change the boxes by pixels, not by tens of them."""
    return awake(swap_activation(tiny_model(), "relu"))


def apart(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The largest differences: of the boxes in pixels, of the scores."""
    assert found.shape == expected.shape == (len(IMAGES), 4 + CLASSES, expected.shape[2])
    difference = np.abs(found - expected)
    return float(difference[:, :4].max()), float(difference[:, 4:].max())


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    pixels, scores = apart(found, expected)
    assert pixels < 0.2
    assert scores < 2e-3
    assert np.abs(expected[1:] - expected[0]).max() > 100 * pixels  # they depend on the picture far more


@runnable
def test_a_pruned_model_answers_the_same_in_its_own_runtime(pruned: nn.Module, name: str, tmp_path: Path) -> None:
    before = snapshot(pruned)
    path = written(pruned, name, tmp_path / "new" / "folder")
    assert snapshot(pruned) == before
    assert list(files_below(tmp_path / "new" / "folder")) == NAMES[name]
    assert path.name == NAMES[name][0].split("/")[0]
    assert_same(RUN[name](path), answers(pruned, IMAGES))


@runnable
def test_a_swapped_activation_is_in_the_file(name: str, tmp_path: Path) -> None:
    model = awake(swap_activation(tiny_model(), "hardswish"))
    found = RUN[name](written(model, name, tmp_path))
    assert_same(found, answers(model, IMAGES))
    assert apart(found, answers(swap_activation(model, "silu"), IMAGES))[0] > 1


@pytest.mark.parametrize("part", STRUCTURES, ids=lambda part: part.__name__)
def test_every_structure_survives_the_conversion_to_ncnn(part: type[Part], tmp_path: Path) -> None:
    """pnnx drops the batch axis by guessing where it is; ncnn crashes on what it guessed wrong."""
    model = awake(change_structure(tiny_model(), part(), seed=0))
    assert_same(ncnn_answers(written(model, "ncnn", tmp_path)), answers(model, IMAGES))


def test_the_box_decoder_is_the_model_s_own(calm: nn.Module, tmp_path: Path) -> None:
    """The fast one takes exponentials of logits up to 40: infinite in a runtime that computes in 16 bits."""
    operators = Counter(node.op_type for node in onnx.load(written(calm, "onnx", tmp_path)).graph.node)
    assert (operators["Softmax"], operators["Exp"]) == (1, 0)


def truncated(weight: Tensor) -> Tensor:
    """The 16-bit float next to each value on the side of zero, as pnnx stores it."""
    bits = weight.numpy().view(np.uint32) & np.uint32(0xFFFFE000)
    return torch.from_numpy(bits.view(np.float32))


def with_weights(model: nn.Module, change: Callable[[Tensor], Tensor], *, biases: bool) -> nn.Module:
    """The fused ``model`` with each weight, and perhaps each bias, replaced."""
    fused: Any = deepcopy(model)
    fused.fuse(verbose=False)
    for name, parameter in fused.named_parameters():
        if biases or not name.endswith("bias"):
            parameter.data = change(parameter.data)
    return fused


@pytest.mark.parametrize(
    ("name", "biases", "change"),
    [("openvino", True, lambda weight: weight.half().float()), ("ncnn", False, truncated)],
    ids=["openvino rounds", "ncnn truncates"],
)
def test_fp16_keeps_sixteen_bits_of_each_weight(
    calm: nn.Module, name: str, biases: bool, change: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    full, half = (written(calm, name, tmp_path / str(fp16), fp16=fp16) for fp16 in (False, True))
    sizes = [max(file.stat().st_size for file in path.iterdir()) for path in (full, half)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)
    found = RUN[name](half)
    pixels, scores = apart(found, answers(with_weights(calm, change, biases=biases), IMAGES))
    assert pixels < 0.5
    assert scores < 5e-3
    assert apart(found, answers(calm, IMAGES))[0] > 4 * pixels  # not the full weights


def test_openvino_computes_the_quantized_onnx_file_in_8_bits(calm: nn.Module, tmp_path: Path) -> None:
    """What the refusal of quantized OpenVINO files advises."""
    source = written(calm, "onnx", tmp_path)
    path = quantize(source, Int8Static(images=4), images=noise, path=tmp_path / "int8.onnx")
    expected = onnx_answers(path, IMAGES)
    difference, rounding = (
        np.abs(other - expected).mean() for other in (openvino_answers(path), answers(calm, IMAGES))
    )
    assert difference < 0.2 * rounding  # a tie between two codes may fall to either side
    operations = [operation.get_rt_info() for operation in compiled(path).get_runtime_model().get_ops()]
    convolutions = [info["runtimePrecision"] for info in operations if info["layerType"].astype(str) == "Convolution"]
    count = Counter(precision.astype(str) for precision in convolutions)
    assert count == {"u8": sum(isinstance(module, nn.Conv2d) for module in calm.modules()) - 1, "f32": 1}  # the decoder


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("broken layer")


def test_a_folder_from_before_is_replaced_and_a_failure_leaves_it(calm: nn.Module, tmp_path: Path) -> None:
    folder = tmp_path / "best.pt"  # a suffix that Ultralytics would replace, here too, in a model that is called so
    path = written(calm, "openvino", folder, fp16=True)
    (path / "old").touch()
    before = files_below(folder)
    broken: Any = deepcopy(calm)
    broken.model[0].act = Broken()
    with pytest.raises(RuntimeError, match="broken layer"):
        written(broken, "openvino", folder)
    assert files_below(folder) == before
    assert list(folder.iterdir()) == [path]  # and no temporary folder
    written(calm, "openvino", folder)
    assert list(files_below(folder)) == NAMES["openvino"]


def test_nothing_is_installed_printed_or_fetched(
    calm: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even where Ultralytics would find that a package is missing, and may install it."""
    from ultralytics import utils
    from ultralytics.utils import checks

    started: list[str] = []

    class OnlyPnnx(subprocess.Popen[Any]):
        def __init__(self, command: Any, *others: Any, **options: Any) -> None:
            started.append(command if isinstance(command, str) else Path(command[0]).name)
            if started[-1] != "pnnx":
                raise OSError("no other program in this test")  # Ultralytics would go on without a word
            super().__init__(command, *others, **options)

    def version(package: str) -> str:
        if package in {"ncnn", "pnnx", "openvino", "onnxslim"}:
            raise metadata.PackageNotFoundError(package)
        return real(package)

    real = metadata.version
    for module in ("openvino", "ncnn", "pnnx"):
        pytest.importorskip(module)
    for name in ("openvino", "ncnn", "onnx"):
        monkeypatch.setitem(FORMATS, name, Format(exporter=name))
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(utils, "VERBOSE", False)  # as the command line has it
    monkeypatch.setattr(checks, "AUTOINSTALL", True)
    monkeypatch.setattr(checks, "ONLINE", True)
    monkeypatch.setattr(subprocess, "Popen", OnlyPnnx)
    monkeypatch.setenv(NO_CHECKS, "0")
    capfd.readouterr()
    for name in ("openvino", "ncnn", "onnx"):
        written(calm, name, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert "pnnx" in started
    assert not {"uv", "pip", Path(sys.executable).name} & set(started)
    assert os.environ[NO_CHECKS] == "0"


def test_openvino_s_usage_statistics_are_not_even_imported(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    spy = tmp_path / "openvino_telemetry"
    spy.mkdir()
    (spy / "__init__.py").write_text(f"open({str(tmp_path / 'seen')!r}, 'w').close()\nTelemetry = None\n")
    code = (
        "from pathlib import Path\nfrom search.stages.formats import export_format\n"
        "from tests.tiny import tiny_model\n"
        f"export_format(tiny_model(), 'openvino', image_size={SIZE}, folder=Path({str(tmp_path)!r}))\n"
    )
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
    assert (tmp_path / "model_openvino_model" / "model.xml").is_file()
    assert not (tmp_path / "seen").exists()


def test_a_format_that_cannot_be_written_is_refused_before_any_work(calm: nn.Module, tmp_path: Path) -> None:
    for name, fp16, message in (
        ("tflite", False, "format tflite: allowed are onnx, torchscript, openvino, ncnn, litert, tensorrt"),
        ("torchscript", True, "torchscript cannot carry quantize: fp16"),
    ):
        with pytest.raises(UserError, match=message):
            export_format(calm, name, image_size=SIZE, folder=tmp_path / "out", fp16=fp16)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(image_size=SIZE, activation="relu", finetune=Finetune(epochs=1, batch=4))


def test_apply_writes_the_trained_model_beside_the_onnx_file(
    recipe: Recipe, baseline: Path, data: Path, tmp_path: Path
) -> None:
    names = [name for name in ("torchscript", "openvino") if formats.why_not_here(name, gpu=False) is None]
    out = tmp_path / "out"
    arguments = {"model": str(baseline), "data": data, "seed": 0, "threads": 1}
    record = apply_recipe(recipe, out=out, formats=["onnx", *names], **arguments)
    assert record.state == "complete"
    assert {path.name for path in out.iterdir()} == {
        *("model.onnx", "recipe.yaml", "measurement.json"),
        *(NAMES[name][0].split("/")[0] for name in names),
    }
    expected = onnx_answers(out / "model.onnx", IMAGES)
    for name in names:
        pixels, scores = apart(RUN[name](out / NAMES[name][0].split("/")[0]), expected)
        assert pixels < 0.01
        assert scores < 1e-4
    untrained = written(swap_activation(tiny_model(), "relu"), "torchscript", tmp_path / "untrained")
    assert apart(RUN["torchscript"](untrained), expected)[1] > 1e-3
    if "openvino" in names:
        known = yaml.safe_load((out / "model_openvino_model" / "metadata.yaml").read_text())
        assert (known["names"][3], known["imgsz"], known["task"]) == ("3", [SIZE, SIZE], "detect")


def test_apply_keeps_the_onnx_file_when_another_format_fails(
    recipe: Recipe, baseline: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Path:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("search.pipeline.export_format", fail)
    quick = recipe.model_copy(update={"finetune": Recipe(image_size=SIZE).finetune})
    arguments = {"model": str(baseline), "data": data, "seed": 0, "threads": 1}
    with pytest.raises(RuntimeError, match="no such operator"):
        apply_recipe(quick, out=tmp_path / "out", formats=["torchscript"], **arguments)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "recipe.yaml", "measurement.json"}


def test_apply_refuses_before_it_trains(
    recipe: Recipe, baseline: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "try_recipe", lambda *_: pytest.fail("it began"))
    quantized = recipe.model_copy(update={"quantize": Int8Static()})
    with pytest.raises(UserError, match="ncnn cannot carry quantize: int8: its exporter writes floats only"):
        apply_recipe(
            quantized, model=str(baseline), data=data, out=tmp_path / "out", seed=0, threads=1, formats=["ncnn"]
        )
    assert not list(tmp_path.iterdir())
