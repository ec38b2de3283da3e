"""The version of ONNX's operators: the target chooses it, and only a storage that needs a newer one raises it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from torch import nn

from search.pipeline import Inputs, write_leaf
from search.prepare import prepare
from search.stages.export import OPSET, export_onnx
from search.stages.quantize import quantize
from search.study import StudyConfig
from search.target import Target
from spaces.parts.quantize import Quantize
from spaces.recipe import Export, Fp16, Fp32, Int8Static, Recipe, WeightOnly
from tests.tiny import SIZE, answers, noise, onnx_answers

At = Callable[[int], Path]


@pytest.fixture(scope="module")
def at(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> At:
    """Gives the model's float file at an opset; made once for each."""
    made: dict[int, Path] = {}

    def get(opset: int) -> Path:
        if opset not in made:
            path = tmp_path_factory.mktemp("opset") / "model.onnx"
            made[opset] = export_onnx(model, Export(), image_size=SIZE, path=path, opset=opset)
        return made[opset]

    return get


def opset_of(path: Path) -> int:
    return next(entry.version for entry in onnx.load(path).opset_import if not entry.domain)


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_the_file_is_valid_in_the_opset_and_answers_as_the_model_does(model: nn.Module, at: At, opset: int) -> None:
    onnx.checker.check_model(str(at(opset)), full_check=True)
    assert opset_of(at(opset)) == opset
    np.testing.assert_allclose(onnx_answers(at(opset), noise(2)), answers(model, noise(2)), rtol=1e-4, atol=0.01)


@pytest.mark.parametrize(
    ("opset", "part", "expected"),
    [
        (13, Fp16(), 13),
        (13, Int8Static(images=2), 13),
        (13, WeightOnly(bits=8), 17),
        (13, WeightOnly(bits=4), 21),
        (13, WeightOnly(bits=2), 25),
        (20, Int8Static(images=2), 20),
        (20, WeightOnly(bits=8), 20),
        (20, WeightOnly(bits=4), 21),
    ],
)
def test_a_precision_keeps_the_opset_unless_its_storage_needs_a_newer_one(
    at: At, tmp_path: Path, opset: int, part: Quantize, expected: int
) -> None:
    path = quantize(at(opset), part, images=noise, path=tmp_path / "model.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    assert opset_of(path) == expected
    usual = quantize(at(OPSET), part, images=noise, path=tmp_path / "usual.onnx")
    np.testing.assert_allclose(onnx_answers(path, noise(2)), onnx_answers(usual, noise(2)), rtol=1e-3, atol=0.05)


def test_the_pipeline_writes_the_opset_of_its_inputs(
    model: nn.Module, baseline: Path, data: Path, tmp_path: Path
) -> None:
    for opset in (OPSET, 15):
        inputs = Inputs(baseline=baseline, data=data, opset=opset)
        path = write_leaf(
            model, Recipe(image_size=SIZE, quantize=Fp32()), inputs, folder=tmp_path / str(opset) / "leaf"
        )
        assert opset_of(path) == opset


def test_a_study_hands_its_target_s_opset_on_and_its_baseline_has_it_too(
    baseline: Path, data: Path, tmp_path: Path
) -> None:
    target = Target(opset=14, runs=10)
    config = StudyConfig(name="opset", model=str(baseline), data=data, image_size=SIZE, target=target)
    place = prepare(config, tmp_path, threads=1)
    assert place.inputs.opset == 14
    assert opset_of(place.baseline(config.target)) == 14


def test_without_a_choice_the_opset_is_the_exporter_s() -> None:
    assert Target().opset == Inputs(baseline=Path(), data=Path()).opset == OPSET == 17


@pytest.mark.parametrize("opset", [12, 21, "new"])
def test_an_opset_that_cannot_be_written_is_refused(opset: Any) -> None:
    with pytest.raises(ValueError, match="opset"):
        Target(opset=opset)
