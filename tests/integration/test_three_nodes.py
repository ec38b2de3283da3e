"""A study on a cluster that loses nodes: submitted as a job, spread over three, two of them killed, one added."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import BENCH, ROOT, Node, RayCluster, lines_of, out_of, ray_cluster, write_study
from tests.tiny import sha256

TRIALS = 9
# Trials hold a GPU, which Ray believes these nodes to have, and train on the CPU.
RESOURCES = {"cpus_per_trial": 1, "gpus_per_trial": 1, "device": "cpu"}
TRIAL = ".train"  # how the names end that Ray gives to a trial's tasks: trainable.train, ImplicitFunc.train
SPACE = """
image_size: 64
activation: [silu, relu, hardswish]
prune: [{kind: none}, {kind: channels, ratio: [0.25, 0.5, 0.75]}]
finetune: {kind: train, epochs: 5, batch: 8}
quantize: [{kind: fp32}, {kind: int8, images: 4}]
"""


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """A head that does nothing but lead, and three nodes with a GPU in name, two of which measure as well."""
    with ray_cluster(cpus=0, resources={}) as started:
        for resources in ({}, BENCH, BENCH):
            started.add(cpus=1, gpus=1, resources=resources)
        started.wait_until_there()
        yield started


def trunk_of(recipe: dict[str, Any]) -> str:
    return json.dumps({name: part for name, part in recipe.items() if name not in ("quantize", "export")})


def trunks(folder: Path, name: str) -> list[str]:
    """The trunks of the lines of a file of the study, the baseline's left out."""
    return [trunk_of(line["recipe"]) for line in lines_of(folder / name) if line.get("id") != "baseline"]


def trials_on(cluster: RayCluster, state: str) -> set[str]:
    """The addresses of the nodes on which a part of a trial is in this state, by what Ray knows of its tasks."""
    ips = {node["node_id"]: node["node_ip"] for node in cluster.state("nodes")}
    return {ips[t["node_id"]] for t in cluster.state("tasks") if t["name"].endswith(TRIAL) and t["state"] == state}


def bench_of(cluster: RayCluster) -> tuple[str, int]:
    """The address of the bench's node, and how often it was started anew."""
    ips = {node["node_id"]: node["node_ip"] for node in cluster.state("nodes")}
    (found,) = [actor for actor in cluster.state("actors") if actor["class_name"] == "Bench"]
    return ips[found["node_id"]], int(found["num_restarts"])


def under_way(folder: Path) -> int:
    return len(set(trunks(folder, "started.jsonl")) - set(trunks(folder, "records.jsonl")))


@pytest.mark.timeout(900)  # beside other tests
def test_a_study_outlives_the_nodes_that_it_runs_on(cluster: RayCluster, tmp_path: Path) -> None:
    study = write_study(tmp_path, TRIALS, space=SPACE, resources=RESOURCES)
    there, home = cluster.home / "yolo-front/studies/tiny", tmp_path / "home"
    job = out_of(cluster.run("submit", study, "--with-data")).strip()
    head, plain, *measuring = cluster.nodes

    def at_work(*nodes: Node, ended: int) -> bool:
        """So many trials have ended, and each of these nodes is in the middle of another one."""
        done = len(set(trunks(there, "records.jsonl")))
        assert done < TRIALS - 2, "too fast for this test"
        return done >= ended and {node.ip for node in nodes} <= trials_on(cluster, "RUNNING")

    cluster.wait(lambda: under_way(there) > 0, seconds=300)
    new = cluster.add(cpus=1, gpus=1, resources=BENCH)
    cluster.wait(lambda: new.ip in cluster.alive() and at_work(plain, *measuring, ended=1), seconds=300)
    plain.kill()
    cluster.wait(lambda: plain.ip not in cluster.alive(), seconds=300)
    (lost,) = [node for node in measuring if node.ip == bench_of(cluster)[0]]
    cluster.wait(lambda: at_work(lost, ended=2), seconds=300)
    lost.kill()

    followed = cluster.run("logs", job, "--follow")
    assert followed.returncode == 0 and f"trial {TRIALS}/{TRIALS}" in followed.stdout, followed
    ran = trials_on(cluster, "FINISHED")
    assert {new.ip, *(node.ip for node in measuring)} <= ran and head.ip not in ran
    bench, restarts = bench_of(cluster)
    assert restarts >= 1 and bench in cluster.alive()
    nothing_lost_or_doubled(there)

    out_of(cluster.run("fetch", job, "--out", home))
    assert lines_of(home / "records.jsonl") == lines_of(there / "records.jsonl")
    for record in lines_of(home / "records.jsonl"):
        assert sha256(home / record["artifact"]["path"]) == record["artifact"]["sha256"]
    command = [sys.executable, "-m", "search", "front", str(home), "--json"]
    front = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert front["records"] == 2 * TRIALS and front["front"]


def nothing_lost_or_doubled(folder: Path) -> None:
    """Both leaves of every trunk that was handed out, once, complete, and no other."""
    started, records = trunks(folder, "started.jsonl"), lines_of(folder / "records.jsonl")
    assert len(started) == len(set(started)) == TRIALS
    assert sorted(trunks(folder, "records.jsonl")) == sorted(2 * started)
    ids = [record["id"] for record in records]
    assert len(set(ids)) == len(ids) == 1 + 2 * TRIALS and ids[0] == "baseline"
    assert {record["state"] for record in records} == {"complete"}
