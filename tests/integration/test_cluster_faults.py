"""A study on real Ray nodes that loses workers, nodes, the whole cluster, its disk and its folder, one by one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
import yaml
from ray._private import ray_constants
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_get

from search import ray_study
from search.digits import make_digits
from search.errors import UserError
from search.measure.parcel import pack
from search.ray_study import Room, _asked_for, check_nodes
from search.resources import Resources
from search.store import Store
from search.target import Target, load_target
from tests.fullness import fill, small_disk
from tests.tiny import SHORT, files_below, tiny_model

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 20
BENCH = {"bench:onnxruntime-cpu": 1}
SPACE: dict[str, Any] = {
    "image_size": 64,
    "finetune": {"kind": "train", "epochs": EPOCHS, "batch": 8, "lr": [0.001, 0.002]},
    "quantize": {"kind": "fp32"},
}


def write_study(folder: Path, **changes: Any) -> Path:
    """A study of two trainings of a tiny detector, all of whose paths lead into ``folder``."""
    folder.mkdir()
    data = make_digits(folder / "digits", image_size=64, counts={"train": 16, "val": 8, "test": 2})
    torch.save({"model": tiny_model(architecture=SHORT)}, folder / "model.pt")
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    content = {
        "name": "tiny",
        "model": str(folder / "model.pt"),
        "data": str(data),
        "image_size": 64,
        "space": str(folder / "space.yaml"),
        "target": {"runs": 10},
        "budget": {"trials": 2},
        "engine": {"screen": False, "starts": False, "candidates": 1},
        "rungs": None,
        "final": None,
        **changes,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "study.yaml"


@contextmanager
def driver(*arguments: object, address: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """``python -m search`` in the background; killed in the end if it runs still."""
    environment = {**os.environ, **({"RAY_ADDRESS": address} if address else {})}
    command = [sys.executable, "-m", "search", *map(str, arguments)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        own = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
        for each in own:  # a Ray of its own
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a driver printed, after it ended as it should."""
    out, error = process.communicate(timeout=500)
    assert process.returncode == code, out + error
    if code == 2:
        assert error.count("\n") == 1, error  # one line for the user
    return error if code else out


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 400) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)
    return found


def epochs(out: Path) -> dict[str, int]:
    """How many epochs of each training in flight are in the stage cache."""
    found: dict[str, int] = {}
    for state in (out / "cache" / "stages").glob("*.state"):
        with contextlib.suppress(FileNotFoundError):  # the training ended
            found[state.name] = int(torch.load(state, weights_only=False)["epoch"]) + 1
    return found


def epochs_done(out: Path) -> int:
    """Those of one training in flight; 0 without any."""
    return next(iter(epochs(out).values()), 0)


def ids(out: Path) -> list[str]:
    file = out / "records.jsonl"
    return [json.loads(line)["id"] for line in file.read_text().splitlines()] if file.exists() else []


def check_whole(out: Path, trials: int) -> None:
    """Every record is there once, complete, and its file is the one that was measured."""
    records = Store(out).searched
    assert len(ids(out)) == len(set(ids(out))) == 1 + trials == 1 + len(records)
    for record in records:
        assert record.state == "complete" and record.artifact is not None, record.reason
        assert pack(out / record.artifact.path).sha256 == record.artifact.sha256
    names = {record.id for record in records} | {"baseline"}
    assert {entry.name for entry in (out / "artifacts").iterdir()} == names
    assert {entry.name for entry in (out / "cache").iterdir()} - {"stages"} == {"token"}  # nothing half-written


def workers_of(node: Any) -> list[psutil.Process]:
    """The processes of a node that train."""
    [raylet] = node.all_processes["raylet"]
    children = psutil.Process(raylet.process.pid).children(recursive=True)
    return [child for child in children if "ImplicitFunc" in "".join(child.cmdline())]


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A head that measures and trains nothing."""
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "resources": BENCH})
    try:
        yield started
    finally:
        started.shutdown()


@contextmanager
def blind_node(address: str | None, hidden: Path) -> Iterator[None]:
    """A node that sees an empty folder at ``hidden``: it is in a mount namespace of its own."""
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--num-cpus=1", "--block"]
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, str(hidden), *start],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        own = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        for each in own:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(20)


def can_unshare() -> bool:
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


@pytest.mark.timeout(1500)
def test_a_study_outlives_its_workers_its_nodes_and_its_cluster(tmp_path: Path) -> None:
    study, out = write_study(tmp_path / "work"), tmp_path / "work" / "out"
    with cluster() as first:
        node = first.add_node(num_cpus=1)
        with driver("run", study, "--out", out, address=first.address) as run:
            before = wait_for(lambda: epochs_done(out) >= 3 and epochs_done(out), run)
            [worker] = workers_of(node)
            worker.kill()
            wait_for(lambda: epochs_done(out) > before and workers_of(node), run)
            assert workers_of(node)[0].pid != worker.pid
            [(training, before)] = epochs(out).items()
            first.remove_node(node, allow_graceful=False)
            first.add_node(num_cpus=1)  # which may begin the other training first
            seen: list[int] = []
            wait_for(lambda: seen.append(epochs(out).get(training, EPOCHS)) or len(ids(out)) == 2, run)
            assert before <= min(seen)  # it was begun anew neither here nor there
            kept = (out / "records.jsonl").read_bytes()
            wait_for(lambda: epochs_done(out) >= 3, run)  # of the second trial
            before = epochs_done(out)
            first.shutdown()  # all of Ray
            run.kill()
    with cluster() as second:
        second.add_node(num_cpus=1)
        with driver("resume", out, address=second.address) as run:
            assert wait_for(lambda: len(ids(out)) == 3 or epochs_done(out), run) >= min(before, 1)
            assert "trial 2/2" in ended(run)
    assert (out / "records.jsonl").read_bytes().startswith(kept)
    check_whole(out, trials=2)


@pytest.mark.timeout(1000)
@pytest.mark.skipif(not can_unshare(), reason="mount namespaces are not allowed here")
def test_a_node_that_does_not_see_the_study_is_sent_what_it_needs(tmp_path: Path) -> None:
    content = {"budget": {"trials": 1}, "resources": {"concurrent": 1}}  # it waits until the node is there
    study, out = write_study(tmp_path / "work", **content), tmp_path / "work" / "out"
    with (
        cluster() as head,
        blind_node(head.address, tmp_path / "work"),
        driver("run", study, "--out", out, address=head.address) as run,
    ):
        assert "trial 1/1" in ended(run)
    assert not (out / "cache" / "stages").exists()  # it was trained elsewhere
    check_whole(out, trials=1)


@pytest.mark.timeout(1500)
def test_a_full_disk_and_a_folder_that_is_gone_end_a_study_that_goes_on_later(tmp_path: Path) -> None:
    study = write_study(tmp_path / "work")
    with small_disk(tmp_path / "disk", 200) as disk:
        out = disk / "out"
        with driver("run", study, "--out", out) as run:
            wait_for(lambda: epochs_done(out) >= 3, run)
            ballast = fill(disk)
            error = ended(run, code=2)
        assert f"{out} is full" in error and f"python -m search resume {out}" in error
        assert ids(out) == ["baseline"]  # the disk is no recipe's failure
        before, reached = files_below(out / "artifacts"), epochs_done(out)
        ballast.unlink()

        with driver("resume", out) as run:
            wait_for(lambda: epochs_done(out) not in {0, reached}, run)
            out.rename(disk / "away")
            error = ended(run, code=2)
        assert f"the study folder {out} is no longer there" in error
        assert not out.exists()  # nothing was begun in its place
        (disk / "away").rename(out)
        assert files_below(out / "artifacts").items() >= before.items()

        with driver("resume", out) as run:
            assert "trial 2/2" in ended(run)
        check_whole(out, trials=2)


def test_room_is_counted_on_real_nodes_and_asked_of_the_autoscaler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster without an autoscaler does not mind being asked."""
    channel = ray_constants.AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    monkeypatch.setattr(ray_study, "LOOK", 0.0)
    resources = Resources(cpus_per_trial=2, custom={"spot": 1}, concurrent=3)
    with cluster() as started:
        for _ in range(2):
            started.add_node(num_cpus=3, resources={"spot": 2})
        started.add_node(num_cpus=8)
        ray.init(address=started.address, log_to_driver=False)
        try:
            room = Room(resources)
            assert room() == 2  # one on each spot node; the large one is none
            with _asked_for(resources):
                asked = json.loads(_internal_kv_get(channel))
            assert asked == [{"CPU": 2, "spot": 1}] * 3
            assert json.loads(_internal_kv_get(channel)) == []
            check_nodes([Target()], resources)
            with pytest.raises(UserError, match=r"node .* would run trials, but onnxruntime-cuda needs"):
                check_nodes([load_target("onnxruntime-cuda")], resources)
            gone = started.add_node(num_cpus=2, resources={"spot": 1})
            assert room() == 3
            started.remove_node(gone, allow_graceful=False)
            until = time.monotonic() + 60
            while room() != 2:
                assert time.monotonic() < until
                time.sleep(0.2)
        finally:
            ray.shutdown()
