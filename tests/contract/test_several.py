"""A target with a batch: what its runtime is really given, and files that several pictures would spoil."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from search.errors import MeasurementError
from search.measure.apart import Apart
from search.measure.file import measure_file
from search.record import Record
from search.stages.export import export_onnx
from search.target import Target, load_target
from spaces.parts.quantize import Quantize
from spaces.recipe import Export, Int8Dynamic, Int8Static
from tests.contract.test_batched import save
from tests.tiny import SIZE, tiny_model
from tests.unit.test_latency import save_convolutions

ROOT = Path(__file__).resolve().parents[2]
# A child that writes down how many pictures each run of a runtime has.
COUNTING = """#!{python}
import runpy
{runtime}
def noted(pictures):
    with open({log!r}, "a") as log:
        log.write(f"{{pictures}}\\n")
runpy.run_module("search.measure.child", run_name="__main__")
"""
RUNTIMES = {
    "onnxruntime-cpu": """
from onnxruntime import InferenceSession
run = InferenceSession.run
def counted(self, names, feed):
    noted(next(iter(feed.values())).shape[0])
    return run(self, names, feed)
InferenceSession.run = counted
""",
    "openvino-cpu": """
from openvino import InferRequest
infer = InferRequest.infer
def counted(self, *arguments, **options):
    noted(self.get_input_tensor(0).shape[0])
    return infer(self, *arguments, **options)
InferRequest.infer = counted
""",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Three widths, the narrowest first."""
    folder = tmp_path_factory.mktemp("models")
    return tuple(  # pyright: ignore[reportReturnType]
        export_onnx(tiny_model(width=width), Export(), image_size=SIZE, path=folder / f"{width}.onnx")
        for width in (0.0625, 0.125, 0.25)
    )


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_timed_run_has_all_pictures_and_each_file_is_checked_once(
    name: str, models: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    if name.startswith("openvino"):
        pytest.importorskip("openvino")
    narrow, middle, wide = models
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(COUNTING.format(python=sys.executable, log=str(log), runtime=RUNTIMES[name]), encoding="utf-8")
    python.chmod(0o700)
    check = [4, 1, 1, 1, 1]
    with Apart(load_target(name, batch=4, runs=10), python=python) as apart:
        for candidate, checks in ((narrow, 2 * check), (middle, check), (narrow, []), (wide, [])):
            log.write_text("")
            latency = apart.measure(candidate, baseline=wide)
            runs = [int(line) for line in log.read_text().splitlines()]
            assert runs[: len(checks)] == checks
            timed = runs[len(checks) :]
            assert set(timed) == {4}
            assert len(timed) >= 2 * latency.runs
            assert (latency.batch, latency.runs) == (4, 10)
            assert latency.fps == pytest.approx(4000 / latency.p50_ms)


def test_the_rate_counts_pictures_and_the_ratio_tells_the_longer_file(tmp_path: Path) -> None:
    short, long = (save_convolutions(tmp_path / f"{layers}.onnx", layers=layers) for layers in (2, 8))
    for batch in (1, 4):
        found = measure_file(long, target=Target(batch=batch, runs=10), against=short, data=None, split="val")
        assert found["latency_batch"] == batch
        assert found["fps"] == pytest.approx(1000 * batch / found["latency_ms_p50"])
        assert found["latency_ratio"] > 1
        assert found["size_bytes"] == long.stat().st_size


def test_a_file_that_mixes_pictures_is_refused_by_its_name_and_no_other_is(tmp_path: Path) -> None:
    node = helper.make_node
    good = save(tmp_path / "good.onnx", [node("Sin", ["x"], ["y"])], {})
    mean = save(
        tmp_path / "mean.onnx", [node("ReduceMean", ["x"], ["m"], axes=[0]), node("Add", ["x", "m"], ["y"])], {}
    )
    folds = save(
        tmp_path / "folds.onnx",
        [
            node("Reshape", ["x", "flat"], ["a"]),
            node("Softmax", ["a"], ["b"], axis=0),
            node("Reshape", ["b", "s"], ["y"]),
        ],
        {"flat": np.array([-1, 6]), "s": np.array([1, 4, 6])},
    )
    stuck = save(
        tmp_path / "stuck.onnx",
        [node("Reshape", ["x", "flat"], ["a"]), node("Sin", ["a"], ["b"]), node("Reshape", ["b", "s"], ["y"])],
        {"flat": np.array([4, 6]), "s": np.array([1, 4, 6])},
    )
    joined = save(
        tmp_path / "joined.onnx",
        [node("Concat", ["x", "w"], ["y"], axis=1)],
        {"w": np.ones((1, 3, 6), dtype=np.float32)},
    )
    with Apart(Target(batch=4, runs=10)) as apart:
        for file, why in (
            (mean, "answers at once are not those to each alone"),
            (folds, "answers at once are not those to each alone"),
            (stuck, "it does not run"),
            (joined, "it does not run: ONNX Runtime .* cannot load the rewritten file"),
        ):
            with pytest.raises(MeasurementError, match=f"{file.name}, rewritten for 4 pictures: {why}") as refused:
                apart.measure(file, baseline=good)
            assert "batch is 1" in str(refused.value)
            assert "yolo-front-batch" not in str(refused.value)
        with pytest.raises(MeasurementError, match=r"no ONNX file at .*absent\.onnx"):
            apart.measure(tmp_path / "absent.onnx", baseline=good)
        assert apart.measure(good, baseline=good).batch == 4
    with Apart(Target(runs=10)) as apart:  # one picture at a time they are as good as any
        assert apart.measure(mean, baseline=folds).batch == 1


def test_the_files_of_a_batch_are_gone_with_their_measurement(
    models: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    narrow, _, wide = models
    with Apart(Target(batch=2, runs=10)) as apart:
        apart.measure(narrow, baseline=wide)
        assert len(list(tmp_path.glob("yolo-front-batch-*/*"))) == 1  # the baseline's, for the next
    assert list(tmp_path.glob("yolo-front-batch-*")) == []


def test_ranges_that_are_fixed_do_not_mix_pictures_and_those_of_a_run_do(leaf: Callable[[Quantize], Path]) -> None:
    fixed = leaf(Int8Static())
    with Apart(Target(batch=4, runs=10)) as apart:
        assert apart.measure(fixed, baseline=fixed).batch == 4
        with pytest.raises(MeasurementError, match="answers at once are not those to each alone"):
            apart.measure(leaf(Int8Dynamic()), baseline=fixed)


def test_records_of_old_are_of_one_picture() -> None:
    [line, *_] = (ROOT / "results" / "bccd-first" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert "batch" not in json.loads(line)["measurement"]["latency"]
    measured = Record.model_validate_json(line).measurement
    assert measured is not None and measured.latency.batch == 1
