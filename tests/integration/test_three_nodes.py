"""A study on a cluster that loses nodes: submitted as a job, spread over three, two of them killed, one added."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import BENCH, ROOT, RayCluster, lines_of, out_of, ray_cluster, write_study
from tests.tiny import sha256

TRIALS = 8
# Trials hold a GPU, which Ray believes these nodes to have, and train on the CPU.
RESOURCES = {"cpus_per_trial": 1, "gpus_per_trial": 1, "device": "cpu"}
SPACE = """
image_size: 64
activation: [silu, relu, hardswish]
prune: [{kind: none}, {kind: channels, ratio: [0.25, 0.5]}]
finetune: {kind: train, epochs: 1, batch: 8}
quantize: [{kind: fp32}, {kind: int8, images: 4}]
"""


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """A head that does nothing but lead, and three nodes with a GPU in name, two of which measure as well."""
    with ray_cluster(cpus=0, resources={}) as started:
        started.wait_until_there()
        for resources in ({}, BENCH, BENCH):
            started.add(cpus=1, gpus=1, resources=resources)
        started.wait_until_there()
        yield started


def trunk_of(recipe: dict[str, Any]) -> str:
    return json.dumps({name: part for name, part in recipe.items() if name not in ("quantize", "export")})


def trunks(folder: Path, name: str) -> list[str]:
    """The trunks of the lines of a file of the study, the baseline's left out."""
    return [trunk_of(line["recipe"]) for line in lines_of(folder / name) if line.get("id") != "baseline"]


def places(cluster: RayCluster, actor: str, *, alive: bool) -> list[str]:
    """The addresses of the nodes that the actors of a class are or were on."""
    ips = {node["node_id"]: node["node_ip"] for node in cluster.state("nodes")}
    own = [found for found in cluster.state("actors") if found["class_name"] == actor]
    return [ips[found["node_id"]] for found in own if found["node_id"] and (found["state"] == "ALIVE" or not alive)]


def under_way(folder: Path) -> int:
    return len(set(trunks(folder, "started.jsonl")) - set(trunks(folder, "records.jsonl")))


@pytest.mark.timeout(900)  # beside other tests
def test_a_study_outlives_the_nodes_that_it_runs_on(cluster: RayCluster, tmp_path: Path) -> None:
    study = write_study(tmp_path, TRIALS, space=SPACE, resources=RESOURCES, final=None)
    there, home = cluster.home / "yolo-front/studies/tiny", tmp_path / "home"
    job = out_of(cluster.run("submit", study, "--with-data")).strip()
    _, plain, *measuring = cluster.nodes

    def at_work(ended: int) -> bool:
        """So many trials have ended, and each of three nodes is in the middle of another one."""
        done = len(set(trunks(there, "records.jsonl")))
        return done >= ended and under_way(there) == 3 == len(set(places(cluster, "ImplicitFunc", alive=True)))

    cluster.wait(lambda: at_work(1), seconds=300)
    plain.kill()
    new = cluster.add(cpus=1, gpus=1, resources=BENCH)
    cluster.wait(lambda: plain.ip not in cluster.alive() and at_work(2), seconds=300)
    (bench,) = places(cluster, "Bench", alive=True)
    (lost,) = [node for node in measuring if node.ip == bench]
    lost.kill()

    followed = cluster.run("logs", job, "--follow")
    assert followed.returncode == 0 and f"trial {TRIALS}/{TRIALS}" in followed.stdout, followed
    ran_on = {task["node_id"] for task in cluster.state("tasks") if task["name"] == "ImplicitFunc.train"}
    assert {plain.ip, new.ip, *(node.ip for node in measuring)} <= set(places(cluster, "ImplicitFunc", alive=False))
    assert len(ran_on) >= 3
    (measured,) = [actor for actor in cluster.state("actors") if actor["class_name"] == "Bench"]
    assert measured["num_restarts"] >= 1 and lost.ip not in places(cluster, "Bench", alive=False)
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
