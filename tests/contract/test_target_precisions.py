"""Which kinds of quantize a target runs, as its file says: each is tried, on a file of a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.errors import MeasurementError
from search.formats import FORMATS, why_not_carried
from search.measure.far import sessions_of
from search.runtimes.session import Runtime
from search.target import Target, load_target, target_names
from spaces.parts.quantize import Quantize
from spaces.recipe import Fp16, Fp32, Int8Dynamic, Int8Static, Int16, LowBit, Mixed, WeightOnly
from tests.tiny import noise

IMAGES = noise(3)
KINDS: list[Any] = [
    Fp32(),
    Fp16(),
    Int8Static(),
    Int8Dynamic(),
    Int16(),
    Mixed(budget=0.2),
    *(WeightOnly(bits=bits) for bits in (8, 4, 3, 2, 1)),
    *(LowBit(bits=bits) for bits in (4, 3, 2, 1)),
]


def named(part: Any) -> str:
    return f"{part.kind}{f'-{part.bits}' if hasattr(part, 'bits') else ''}"


def outputs(file: Path, runtime: Runtime) -> np.ndarray:
    with sessions_of(runtime) as load:
        session = load(file)
        return np.concatenate([session.run([image])[0] for image in IMAGES])


def runs_right(file: Path, plain: Path, runtime: Runtime) -> bool:
    """Whether a runtime gives what ONNX Runtime's CPU provider gives, which computes as the file says.

    Two ways of rounding differ by less than what rounding costs: by half of the distance to the float file's answers.
    """
    try:
        found = outputs(file, runtime)
    except MeasurementError:
        return False
    expected, exact = outputs(file, Runtime()), outputs(plain, Runtime())
    cost = np.abs(expected - exact).mean()
    return bool(np.abs(found - expected).mean() <= 0.5 * cost + 1e-4)


def check_kinds(target: Target, leaf: Callable[[Quantize], Path]) -> None:
    plain = leaf(Fp32())
    for part in KINDS:
        claimed = target.runs_kind(part.kind, getattr(part, "bits", None))
        assert runs_right(leaf(part), plain, target.as_runtime) == claimed, f"{target.name} and {named(part)}"


def test_openvino_runs_what_it_claims_and_nothing_else(leaf: Callable[[Quantize], Path]) -> None:
    pytest.importorskip("openvino")
    check_kinds(load_target("openvino-cpu"), leaf)


@pytest.mark.slow
def test_the_openvino_provider_runs_what_it_claims(
    leaf: Callable[[Quantize], Path], provider_environment: None
) -> None:
    target = load_target("onnxruntime-openvino")
    plain = leaf(Fp32())
    for part in KINDS:
        if target.runs_kind(part.kind, getattr(part, "bits", None)):
            assert runs_right(leaf(part), plain, target.as_runtime), named(part)
    assert not runs_right(leaf(Int8Dynamic()), plain, target.as_runtime)
    assert not runs_right(leaf(Mixed(budget=0.2, fallback="int16")), plain, target.as_runtime)  # a crash in the child


@pytest.mark.parametrize("name", target_names())
def test_a_target_claims_no_kind_that_its_format_cannot_carry(name: str) -> None:
    target = load_target(name)
    assert target.format in FORMATS
    if target.format == "litert":
        pytest.skip("its files are not written by Ultralytics' exporter")
    claimed = {part.kind for part in KINDS if target.runs_kind(part.kind, getattr(part, "bits", None))}
    assert all(not why_not_carried(target.format, kind) for kind in claimed) or target.format == "onnx"
    known = {part.kind for part in KINDS} | {named(part) for part in KINDS}
    assert set(target.precisions) <= known
