import json
import os
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from search.errors import MeasurementError
from search.measure.latency import Latency, measure_latency
from search.measure.pairs import Effort, Series, time_pairs
from search.runtimes.onnx_runtime import open_onnx
from search.runtimes.session import Runtime
from spaces.recipe import Recipe
from tests.fakes import make_record


def save_convolutions(
    path: Path, *, layers: int, side: Any = 64, batch: Any = 1, kind: int = TensorProto.FLOAT
) -> Path:
    """A stack of equal 3x3 convolutions, so that the work is proportional to the number of layers."""
    element = helper.tensor_dtype_to_np_dtype(kind)
    rng = np.random.default_rng(0)
    weights = [(0.05 * rng.standard_normal((16, 16, 3, 3))).astype(element) for _ in range(layers)]
    nodes = [
        helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"x{index + 1}"], pads=[1, 1, 1, 1])
        for index in range(layers)
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x0", kind, [batch, 16, side, side])],
        [helper.make_tensor_value_info(f"x{layers}", kind, None)],
        [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    return {
        "small": save_convolutions(folder / "small.onnx", layers=2),
        "large": save_convolutions(folder / "large.onnx", layers=8),
        "half-size": save_convolutions(folder / "half-size.onnx", layers=8, side=32),
    }


def test_a_model_against_itself_has_a_ratio_of_one(models: dict[str, Path]) -> None:
    latency = measure_latency(models["large"], models["large"], effort=Effort(runs=60))
    assert latency.clock == "thread-cpu"
    assert latency.ratio == pytest.approx(1, abs=0.12)
    assert latency.ratio_low - 0.05 <= 1 <= latency.ratio_high + 0.05
    assert latency.ratio_low <= latency.ratio <= latency.ratio_high


def test_a_quarter_of_the_work_is_clearly_faster(models: dict[str, Path]) -> None:
    faster = measure_latency(models["small"], models["large"], effort=Effort(runs=60))
    slower = measure_latency(models["large"], models["small"], effort=Effort(runs=60))
    assert faster.ratio_high < 0.5 < 2 < slower.ratio_low
    assert faster.ratio * slower.ratio == pytest.approx(1, abs=0.2)


def test_only_an_unsteady_baseline_is_timed_once_more(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Few sessions stay few: a second attempt would double the time of every such measurement."""
    seen, end = list[Series](), 1

    def time_and_keep(*args: Any, **more: Any) -> Series:
        series = replace(time_pairs(*args, **more), disturbed=True)
        seen.append(replace(series, cpu=np.linspace([1, 1], [1, end], len(series.cpu))))
        return seen[-1]

    monkeypatch.setattr("search.measure.latency.time_pairs", time_and_keep)
    for attempts in (1, 2):
        seen.clear()
        end = attempts  # the baseline takes twice as long in the end
        latency = measure_latency(models["small"], models["small"], effort=Effort(runs=4))
        assert len(seen) == attempts
        assert any("used the memory" in doubt for doubt in latency.doubts)
        assert any("2 of the 3 sessions" in doubt for doubt in latency.doubts)
        assert any("slower" in doubt for doubt in latency.doubts) == (attempts == 2)


def test_the_candidate_is_timed_on_its_own_input_size(models: dict[str, Path]) -> None:
    assert measure_latency(models["half-size"], models["large"], effort=Effort(runs=40)).ratio_high < 0.5


def test_the_ratio_holds_while_other_threads_of_the_process_compute(models: dict[str, Path]) -> None:
    """Wall time and the whole process's CPU time would both count the other threads."""
    stop = threading.Event()
    matrix = np.full((300, 300), 1e-3, dtype=np.float32)

    def compute() -> None:
        while not stop.is_set():
            np.matmul(matrix, matrix)

    quiet = measure_latency(models["small"], models["large"], effort=Effort(runs=60))
    burners = [threading.Thread(target=compute) for _ in range(2)]
    for burner in burners:
        burner.start()
    try:
        busy = measure_latency(models["small"], models["large"], effort=Effort(runs=60))
    finally:
        stop.set()
        for burner in burners:
            burner.join()
    assert busy.ratio == pytest.approx(quiet.ratio, rel=0.25)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
def test_one_thread_means_the_calling_thread(models: dict[str, Path]) -> None:
    """What timing by the calling thread's CPU clock rests on: there is no other thread to do the work."""

    def running() -> set[str]:
        return {task.name for task in Path("/proc/self/task").iterdir()}

    before = running()
    sessions = [open_onnx(models["large"], threads=1)]
    sessions[0].run(None, {"x0": np.zeros((1, 16, 64, 64), dtype=np.float32)})
    assert running() <= before
    sessions.append(open_onnx(models["large"], threads=2))
    assert len(running() - before) == 1


def test_two_threads_are_timed_by_the_wall_clock(models: dict[str, Path]) -> None:
    latency = measure_latency(models["small"], models["large"], runtime=Runtime(threads=2), effort=Effort(runs=20))
    assert (latency.clock, latency.threads, latency.runs) == ("wall", 2, 20)
    assert latency.ratio < 1


def test_milliseconds_agree_with_one_another_and_survive_json(models: dict[str, Path]) -> None:
    latency = measure_latency(
        models["small"], models["large"], effort=Effort(runs=30), cores=[min(os.sched_getaffinity(0))]
    )
    assert 0 < latency.p50_ms <= latency.p95_ms
    assert latency.fps == pytest.approx(1000 / latency.p50_ms)
    assert latency.p50_ms < latency.baseline_p50_ms
    assert Latency(**json.loads(json.dumps(asdict(latency)))) == latency


def test_others_time_is_taken_off_by_what_it_cost_the_baseline() -> None:
    """The baseline waited for half of its 20 ms. How long a short run waited is chance: its own median says little."""
    made = make_record(Recipe(image_size=64), latency=0.3).measurement
    assert made is not None
    assert made.latency.quiet_ms == pytest.approx(made.latency.p50_ms)
    for p50 in (3.0, 6.0, 9.0):
        assert replace(made.latency, p50_ms=p50, baseline_p50_ms=20.0, waiting=0.5).quiet_ms == pytest.approx(3.0)


def test_pinning_is_kept_to_the_measurement(models: dict[str, Path], tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    assert measure_latency(models["small"], models["small"], effort=Effort(runs=2), cores=[core, core]).cores == (core,)
    assert os.sched_getaffinity(0) == before
    with pytest.raises(MeasurementError):
        measure_latency(tmp_path / "missing.onnx", models["small"], cores=[core])
    assert os.sched_getaffinity(0) == before
    last = max(os.sched_getaffinity(0))
    assert measure_latency(models["small"], models["small"], effort=Effort(runs=2)).cores == (last,)


def test_a_system_without_affinity_is_measured_unpinned_and_says_so(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    assert measure_latency(models["small"], models["small"], effort=Effort(runs=2), cores=[0]).cores is None


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_input_types_and_an_open_batch_size(tmp_path: Path, kind: int) -> None:
    model = save_convolutions(tmp_path / "model.onnx", layers=1, side=8, batch="batch", kind=kind)
    assert measure_latency(model, model, effort=Effort(runs=2)).p50_ms > 0


def test_a_missing_file_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"no ONNX file at .*absent\.onnx; export the model first"):
        measure_latency(models["small"], tmp_path / "absent.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_broken_file_is_named_with_the_reason(models: dict[str, Path], tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"cannot load .*broken\.onnx .*rotobuf.*; export the model again"):
        measure_latency(broken, models["small"])


def test_an_open_input_size_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    model = save_convolutions(tmp_path / "open.onnx", layers=1, side="side")
    with pytest.raises(MeasurementError, match=r"'x0' of .*open\.onnx .*'side'.*fixed input size"):
        measure_latency(model, models["small"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"effort": Effort(runs=1)}, "at least 2 runs"),
        ({"runtime": Runtime(threads=0)}, "at least .* 1 thread"),
        ({"runtime": Runtime(threads=2), "cores": [0]}, r"2 threads .* cores \[0\]"),
        ({"cores": []}, "at least as many cores"),
        ({"cores": [4095]}, r"cores \[4095\].*may use only"),
    ],
)
def test_ways_of_timing_that_cannot_work(models: dict[str, Path], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        measure_latency(models["small"], models["small"], **wrong)
