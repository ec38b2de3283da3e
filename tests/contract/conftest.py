"""What every stage's tests start from. Stages leave their input untouched, so one session shares it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from search import environments
from search.data import make_view, read_data, sample_batches
from search.digit_scans import make_digit_scans
from search.digits import make_digits
from search.errors import UserError
from search.measure.worker import environment_of
from search.stages.export import export_onnx
from search.stages.heads import load_model
from search.stages.quantize import quantize
from search.target import load_target
from spaces.parts.quantize import Quantize
from spaces.recipe import Export
from tests.tiny import SIZE, noise, tiny_model
from tests.tiny_classifier import COUNTS, SIDE, fit_last, tiny_classifier


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in Ultralytics' form."""
    path = tmp_path_factory.mktemp("baseline") / "baseline.pt"
    torch.save({"model": tiny_model()}, path)
    return path


@pytest.fixture(scope="session")
def model(baseline: Path) -> nn.Module:
    return load_model(baseline)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's view of two dozen pictures of digits."""
    folder = tmp_path_factory.mktemp("data")
    made = make_digits(folder / "digits", image_size=SIZE, counts={"train": 12, "val": 6, "test": 6})
    return make_view(read_data(made), folder / "view")


@pytest.fixture(scope="session")
def batches(data: Path) -> list[dict[str, Any]]:
    """Labelled training batches."""
    return sample_batches(data, image_size=SIZE, count=2, batch=4, seed=0)


@pytest.fixture(scope="session")
def plain(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline's file without rewrites of its graph."""
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    return export_onnx(model, Export(fast_dfl=False), image_size=SIZE, path=path)


@pytest.fixture(scope="session")
def fast(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline's file with a product in place of the softmax."""
    path = tmp_path_factory.mktemp("fast") / "model.onnx"
    return export_onnx(model, Export(fast_dfl=True), image_size=SIZE, path=path)


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a model whose answers depend on the picture: its batch norms were set on pictures of noise.

    Their small weights keep the activations near linear, so that small errors stay small.
    """
    lively = tiny_model()
    norms = [module for module in lively.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # statistics of all that was seen
        norm.reset_running_stats()
        norm.weight.data *= 0.3
        norm.bias.data *= 0.3
    with torch.no_grad():
        lively(torch.from_numpy(np.concatenate(noise(16, seed=1))))
    path = tmp_path_factory.mktemp("lively") / "model.onnx"
    return export_onnx(lively.eval(), Export(), image_size=SIZE, path=path)


@pytest.fixture(scope="session")
def leaf(lively: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Quantize], Path]:
    """Gives the lively file in a precision, calibrated on pictures of noise; made once for each."""

    made: dict[str, Path] = {}

    def get(part: Quantize) -> Path:
        name = part.model_dump_json()
        if name not in made:
            made[name] = quantize(lively, part, images=noise, path=tmp_path_factory.mktemp("leaf") / "model.onnx")
        return made[name]

    return get


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of single digits, a folder for each digit."""
    return make_digit_scans(tmp_path_factory.mktemp("scans") / "digits", counts=COUNTS)


@pytest.fixture(scope="session")
def class_view(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's view of them."""
    return make_view(read_data(scans), tmp_path_factory.mktemp("class_view"))


@pytest.fixture(scope="session")
def class_baseline(class_view: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a classifier that has seen the training pictures."""
    path = tmp_path_factory.mktemp("class_baseline") / "baseline.pt"
    [batch] = sample_batches(class_view, image_size=SIDE, count=1, batch=COUNTS["train"], seed=0)
    torch.save({"model": fit_last(tiny_classifier(), batch["img"], batch["cls"])}, path)
    return path


@pytest.fixture(scope="session")
def classifier(class_baseline: Path) -> nn.Module:
    return load_model(class_baseline)


@pytest.fixture(scope="session")
def provider_environment() -> None:
    """The environment of the target onnxruntime-openvino, in a place that outlives the tests; made if there is pip."""
    target = load_target("onnxruntime-openvino")
    place = os.environ.setdefault(
        environments.ROOT_VARIABLE, str(Path(tempfile.gettempdir()) / "yolo-front-environments")
    )
    try:
        environments.python_of(environment_of(target.environment))
    except UserError as error:
        pytest.skip(f"no environment in {place}: {error}")
