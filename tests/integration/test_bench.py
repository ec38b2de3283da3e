"""The bench on real Ray: its actor dies in the middle of a measurement."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from search.errors import FaultError, MeasurementError, UnansweredError, UserError
from search.measure.bench import remote_latency, start_bench, start_benches
from search.measure.host import host_info
from search.measure.latency import Latency
from search.measure.parcel import pack
from search.ray_trial import keep_to_cores
from search.target import Target
from tests.loops import save_loop

ROOT = Path(__file__).resolve().parents[2]
TARGET = Target(runs=5000, precision=1e-6, seconds=6.0)  # never known, so timed for six seconds
LONG, SHORT = TARGET.effort(100_000), TARGET.effort(30)
QUICK = Target(name="quick", runtime="onnxruntime", runs=30)
HOST = host_info().id
SECOND = """
import ray, sys, time
from pathlib import Path
from search.measure.bench import bench_host, remote_latency, start_bench
from tests.integration.test_bench import QUICK, SHORT, TARGET

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
benches = [start_bench(QUICK), start_bench(TARGET)]
measure = remote_latency(Path(sys.argv[2]), QUICK, bench_host(QUICK).id)
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
print(measure(Path(sys.argv[2]), SHORT).runs, time.monotonic() - start)
"""


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    ray.init(
        address="local",
        num_cpus=2,
        resources={TARGET.slot: 1, QUICK.slot: 1},
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        quick = start_bench(QUICK)  # it lives as long as its handle
        yield start_bench(TARGET)
        del quick
    finally:
        ray.shutdown()


def pid_of(bench: Any) -> int:
    return ray.get(bench.__ray_call__.remote(lambda self: os.getpid()))


def test_the_death_of_the_actor_costs_a_repeat_and_nothing_else(bench: Any, tmp_path: Path) -> None:
    shorter, longer = save_loop(tmp_path / "shorter.onnx", 1_000), save_loop(tmp_path / "longer.onnx", 4_000)
    first = pid_of(bench)
    pending: Any = bench.measure.remote(pack(longer), pack(shorter), LONG)
    start = time.monotonic()
    time.sleep(3)
    os.kill(first, signal.SIGKILL)
    latency: Latency = ray.get(pending, timeout=120)
    assert time.monotonic() - start > 3 + 6  # begun anew
    assert latency.ratio == pytest.approx(4, rel=0.2)
    assert pid_of(bench) != first
    again = remote_latency(shorter, TARGET, HOST)(longer, SHORT)
    assert again.ratio == pytest.approx(latency.ratio, rel=0.1)
    assert again.host == HOST


def test_files_are_measured_as_they_were_sent(bench: Any, tmp_path: Path) -> None:
    """The actor may be on another machine: what it needs is in the request, and the baseline may change its name."""
    file, longer = save_loop(tmp_path / "model.onnx", 2_000), save_loop(tmp_path / "longer.onnx", 8_000)
    first, other = remote_latency(file, QUICK, HOST), remote_latency(longer, QUICK, HOST)
    request = pack(file)
    file.unlink()
    handle = ray.get_actor(QUICK.slot)
    latency: Any = ray.get(handle.measure.remote(request, pack(longer), SHORT))
    assert latency.ratio == pytest.approx(0.25, rel=0.2)
    assert first(longer, SHORT).ratio == pytest.approx(4, rel=0.2)
    assert other(longer, SHORT).ratio == pytest.approx(1, rel=0.2)


def test_a_file_that_is_refused_is_refused_in_words_alone(bench: Any, tmp_path: Path) -> None:
    """They are the reason in its record, which has room for one sentence and none for a traceback."""
    file, broken = save_loop(tmp_path / "model.onnx", 2_000), tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(MeasurementError) as refused:
        remote_latency(file, QUICK, HOST)(broken, SHORT)
    assert type(refused.value) is MeasurementError
    assert "cannot load broken.onnx for CPUExecutionProvider" in str(refused.value)
    assert "/" not in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_measurements_of_two_targets_on_a_machine_take_turns(bench: Any, tmp_path: Path) -> None:
    file = save_loop(tmp_path / "model.onnx", 2_000)
    slow: Any = bench.measure.remote(pack(file), pack(file), LONG)
    time.sleep(1)
    start = time.monotonic()
    remote_latency(file, QUICK, HOST)(file, SHORT)
    assert time.monotonic() - start > 3  # of the six seconds
    ray.get(slow, timeout=60)


def test_a_second_study_shares_the_benches_and_takes_turns(bench: Any, tmp_path: Path) -> None:
    """It takes them in another order, and waits for a measurement under way, not for the first study to end."""
    file = save_loop(tmp_path / "model.onnx", 2_000)
    command = [sys.executable, "-c", SECOND, ray.get_runtime_context().gcs_address, str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as second:
        try:
            assert second.stdout and second.stdout.readline() == "ready\n"
            slow: Any = bench.measure.remote(pack(file), pack(file), LONG)
            time.sleep(1)
            runs, seconds = second.communicate("go\n", timeout=60)[0].split()
        finally:
            second.kill()
    assert int(runs) > 0
    assert float(seconds) > 3  # of the six seconds of the first
    ray.get(slow, timeout=60)


def test_a_bench_on_another_machine_ends_the_study(bench: Any, tmp_path: Path) -> None:
    """As when its node died and the slot is offered by another processor: no record of there could be compared."""
    file = save_loop(tmp_path / "model.onnx", 2_000)
    with pytest.raises(FaultError, match=rf"bench:quick measures on another machine now \({HOST}, before 0123abcdef\)"):
        remote_latency(file, QUICK, "0123abcdef")(file, SHORT)


def test_trials_keep_off_the_cores_of_the_benches_on_their_node(bench: Any) -> None:
    second = QUICK.model_copy(update={"cores": (2,)})
    elsewhere = QUICK.model_copy(update={"name": "phone", "cores": (0,)})

    def kept() -> list[Any]:
        """What two trials one after the other in a process of eight cores keep to."""
        told = list[Any]()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "sched_getaffinity", lambda pid: told[-1] if told else set(range(8)))
            patched.setattr(os, "sched_setaffinity", lambda pid, cores: told.append(set(cores)))
            patched.setattr("search.cores.TOPOLOGY", Path("/absent"))
            for _ in range(2):
                keep_to_cores((TARGET, second, elsewhere))
        return told

    run: Any = ray.remote(num_cpus=0)(kept)
    assert ray.get(run.remote()) == [{0, 1, 3, 4, 5, 6}] * 2


def test_a_request_that_gets_no_answer_is_given_up(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.measure.bench.WAITING", 1.0)
    file = save_loop(tmp_path / "model.onnx", 2_000)
    with pytest.raises(UnansweredError, match="bench:onnxruntime-cpu gave no answer in 1 s") as unanswered:
        remote_latency(file, TARGET, HOST)(file, LONG)
    assert not isinstance(unanswered.value, MeasurementError)  # which would be the file's fault
    monkeypatch.undo()
    assert remote_latency(file, TARGET, HOST)(file, SHORT).runs > 0


def test_a_cluster_without_the_slot_is_refused(bench: Any) -> None:
    with pytest.raises(
        UserError, match=r'no node .* measures for phone: .*"bench:phone": 1.* offer bench:onnxruntime-cpu'
    ):
        start_bench(Target(name="phone", runtime="onnxruntime"))


def test_a_target_that_is_not_needed_refuses_when_it_is_asked(bench: Any, tmp_path: Path) -> None:
    phone, file = Target(name="phone", runtime="onnxruntime"), save_loop(tmp_path / "model.onnx", 2_000)
    found, refusals = start_benches([QUICK, phone], needed=1)
    assert (set(found), set(refusals)) == ({"quick"}, {"phone"})
    with pytest.raises(UserError, match=r"no node .* measures for phone"):
        refusals["phone"](file, SHORT)
    with pytest.raises(UserError, match=r"no node .* measures for phone"):
        start_benches([QUICK, phone], needed=2)
