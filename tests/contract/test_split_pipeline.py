"""Pipelines of real processes: equal answers, in order, and a clean end whatever happens to a stage."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from search.measure.latency import usable_cores
from search.split.cut import split_model
from search.split.measure import compare
from search.split.runner.pipeline import Device, Pipeline, PipelineError
from spaces.recipe import Int8Static
from tests.qdq import early_output, inputs
from tests.tiny import noise, one_thread, onnx_answers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=["float", "int8"])
def path(request: pytest.FixtureRequest, lively: Path, leaf: Callable[..., Path]) -> Path:
    return lively if request.param == "float" else leaf(Int8Static())


@pytest.fixture(scope="module")
def stages(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split") / "stages"
    split_model(path, 3, folder)
    return folder


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages of a model that looks up its first number in a table of four, in the last stage."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Softmax", ["s"], ["t"]),
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "i"], ["g"]),
        helper.make_node("Add", ["t", "g"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    table = numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")
    graph = helper.make_graph(nodes, "picky", [ends[0]], [ends[1]], [table])
    folder = tmp_path_factory.mktemp("picky")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    split_model(folder / "model.onnx", 2, folder / "stages")
    return folder / "stages"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process and no open file, which shared memory is too, that was not there before."""

    def seen() -> tuple[set[int], int]:
        gc.collect()
        children = {child.pid for child in psutil.Process().children(recursive=True)}
        return children, len(list(Path("/proc/self/fd").iterdir()))

    before = seen()
    yield
    after = seen()
    assert not after[0] - before[0], "a process is left"
    assert after[1] <= before[1], "a file is open"


def test_many_pictures_at_once_are_answered_in_order_and_bit_by_bit_as_one_by_one(path: Path, stages: Path) -> None:
    pictures = noise(12, seed=5)
    expected = onnx_answers(path, pictures)
    assert np.ptp(expected, axis=0).max() > 0.01, "the pictures have to differ"
    with Pipeline(stages) as pipeline:
        futures = [pipeline.submit([picture]) for picture in pictures]
        found = np.concatenate([future.result(60)[0] for future in futures])
        again = pipeline.run([pictures[0]], 60)[0]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(again, expected[:1])


def test_what_an_early_stage_makes_is_handed_through(tmp_path: Path) -> None:
    path = early_output(tmp_path / "model.onnx")
    split_model(path, 3, tmp_path / "stages")
    session = onnxruntime.InferenceSession(str(path), one_thread(), providers=["CPUExecutionProvider"])
    with Pipeline(tmp_path / "stages") as pipeline:
        futures = [pipeline.submit([image]) for image in inputs(10)]
        for image, future in zip(inputs(10), futures, strict=True):
            expected = list(map(np.asarray, session.run(None, {"x": image})))
            assert len(expected) == 2
            for found, value in zip(future.result(60), expected, strict=True):
                np.testing.assert_array_equal(found, value)


def test_what_was_submitted_is_answered_when_it_is_closed(path: Path, stages: Path) -> None:
    pictures = noise(3, seed=6)
    with Pipeline(stages) as pipeline:
        futures = [pipeline.submit([picture]) for picture in pictures]
    assert all(future.done() for future in futures)
    np.testing.assert_array_equal(
        np.concatenate([future.result()[0] for future in futures]), onnx_answers(path, pictures)
    )
    with pytest.raises(PipelineError, match="closed"):
        pipeline.submit([pictures[0]])


def test_each_stage_is_a_process_on_its_cores(stages: Path) -> None:
    cores = usable_cores()
    devices = [Device(cores=(cores[0],)), Device(cores=(cores[-1],)), Device(cores=cores)]
    with Pipeline(stages, devices) as pipeline:
        assert [psutil.Process(pid).cpu_affinity() for pid in pipeline.pids] == [
            [cores[0]],
            [cores[-1]],
            list(cores),
        ]
        assert len(set(pipeline.pids) - {os.getpid()}) == 3


def test_it_takes_no_more_pictures_than_it_has_room_for(stages: Path) -> None:
    [picture] = noise(1)
    with Pipeline(stages) as pipeline:
        os.kill(pipeline.pids[1], signal.SIGSTOP)
        futures = [pipeline.submit([picture]) for _ in range(pipeline.depth)]
        assert not pipeline._room.acquire(timeout=0.5)
        os.kill(pipeline.pids[1], signal.SIGCONT)
        futures.append(pipeline.submit([picture]))
        assert len([future.result(60) for future in futures]) == pipeline.depth + 1


def test_a_stage_that_fails_tells_the_caller_and_goes_on(picky: Path) -> None:
    good, bad = np.full((1, 8), 2.5, np.float32), np.full((1, 8), 100.0, np.float32)
    with Pipeline(picky) as pipeline:
        futures = [pipeline.submit([array]) for array in (good, bad, good)]
        with pytest.raises(PipelineError, match=r"stage \d of 2 \(stage\d.onnx\): .*indices element out of"):
            futures[1].result(60)
        for future in (futures[0], futures[2]):
            np.testing.assert_allclose(future.result(60)[0], 2 + 1 / 8)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stage_that_dies_is_named_and_the_pipeline_ends(stages: Path, number: int) -> None:
    [picture] = noise(1)
    pipeline = Pipeline(stages)
    pipeline.run([picture], 60)
    os.kill(pipeline.pids[number], signal.SIGSTOP)
    waiting = [pipeline.submit([picture]) for _ in range(3)]
    os.kill(pipeline.pids[number], signal.SIGKILL)
    with pytest.raises(PipelineError, match=rf"stage {number + 1} \(signal 9\) died"):
        waiting[-1].result(60)
    assert not any(psutil.pid_exists(pid) for pid in pipeline.pids)
    with pytest.raises(PipelineError, match=f"stage {number + 1}"):
        pipeline.submit([picture])
    pipeline.close()


def test_the_stages_end_when_their_caller_is_killed(stages: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from search.split.runner.pipeline import Pipeline\n"
        "pipeline = Pipeline(Path(sys.argv[1])); print(*pipeline.pids, flush=True); time.sleep(600)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, str(stages)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert caller.stdout
    with caller.stdout:
        pids = [int(pid) for pid in caller.stdout.readline().split()]
        assert len(pids) == 3
        caller.kill()
        caller.wait()
    end = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_cannot_be_loaded_is_said(picky: Path, tmp_path: Path) -> None:
    for name in ("stage1.onnx", "split.json"):
        (tmp_path / name).write_bytes((picky / name).read_bytes())
    (tmp_path / "stage2.onnx").write_text("broken")
    with pytest.raises(PipelineError, match=r"stage 2 of 2 \(stage2.onnx\): .*Protobuf"):
        Pipeline(tmp_path)
    with pytest.raises(PipelineError, match="is no split model"):
        Pipeline(tmp_path / "other")
    with pytest.raises(PipelineError, match="2 stages; 1 devices"):
        Pipeline(picky, [Device()])


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="has CUDA")
def test_without_the_gpu_there_is_no_pipeline(picky: Path) -> None:
    with pytest.raises(PipelineError, match=r"stage 2 of 2 .*no CUDAExecutionProvider here"):
        Pipeline(picky, [Device(), Device.parse("cuda:1")])


def test_inputs_that_do_not_fit_are_refused(picky: Path) -> None:
    with Pipeline(picky) as pipeline:
        for array in (np.zeros((1, 9), np.float32), np.zeros((1, 8), np.float64)):
            with pytest.raises(ValueError, match="the model takes"):
                pipeline.submit([array])
        assert pipeline.run([np.zeros((1, 8), np.float32)], 60)[0].shape == (1, 8)


def test_devices_are_read() -> None:
    assert Device.parse("cpu") == Device()
    assert Device.parse("cpu:3") == Device(cores=(3,))
    assert Device.parse(" cpu:1-3") == Device(cores=(1, 2, 3))
    assert Device.parse("cuda:1") == Device(provider="cuda", number=1)
    for text in ("", "gpu", "cpu:", "cpu:a", "cpu:3-1", "cuda:0-1"):
        with pytest.raises(PipelineError, match="is no device"):
            Device.parse(text)


def test_it_is_timed_beside_other_uses_of_the_cores(path: Path, stages: Path) -> None:
    found = compare(path, stages, turns=2, seconds=0.2)
    assert [len(found[name]["cpu_ms"]) for name in ("pipeline", "threads", "replicas", "single")] == [3, 1, 3, 1]
    for name, (ratio, low, high) in found["ratios"].items():
        assert low <= ratio <= high and found[name]["pictures_per_s"] > 0 and found[name]["alone_ms_p50"] > 0


def test_the_command_writes_stages_and_tells_what_is_wrong(lively: Path, tmp_path: Path) -> None:
    def split(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "search", "split", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)

    done = split(lively, "--stages", 2, "--out", tmp_path / "two", "--devices", "cpu:0,cuda:1", "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about | {"out": 0} == json.loads((tmp_path / "two" / "split.json").read_text()) | {"out": 0}
    assert [stage["device"] for stage in about["stages"]] == ["cpu:0", "cuda:1"]
    assert [(tmp_path / "two" / stage["file"]).stat().st_size for stage in about["stages"]] == [
        stage["bytes"] for stage in about["stages"]
    ]
    again = split(lively, "--stages", 2, "--out", tmp_path / "two")
    assert again.returncode == 2 and again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
