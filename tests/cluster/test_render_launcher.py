"""The launcher's configuration, read by Ray's own launcher: its defaults, its schema and its checks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.errors import UserError
from cluster.render.launcher import render_ray_up
from cluster.render.load import parse_spec
from tests.cluster.specs import contents, golden_spec

PROVIDERS = {"default": "aws", "aws": "aws", "gcp": "gcp", "on-premise": "local"}


def config(content: dict[str, Any]) -> dict[str, Any]:
    return yaml.safe_load(render_ray_up(parse_spec(content, where="spec"))["ray-up.yaml"])


def accepted(document: dict[str, Any]) -> dict[str, Any]:
    """What ``ray up`` makes of it before it calls the cloud."""
    prepared = prepare_config(document)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("case", PROVIDERS)
def test_ray_accepts_the_configuration_and_adds_no_nightly_ray(case: str) -> None:
    prepared = accepted(yaml.safe_load(render_ray_up(golden_spec(case))["ray-up.yaml"]))
    assert prepared["provider"]["type"] == PROVIDERS[case]
    commands = json.dumps([value for key, value in prepared.items() if key.endswith("_commands")])
    assert "ray-wheels" not in commands and "pip install -U" not in commands


@settings(max_examples=25)
@given(contents().filter(lambda content: (content["storage"] or {}).get("kind") != "volume"))
def test_ray_accepts_any_spec_with_every_group_in_it(content: dict[str, Any]) -> None:
    prepared = accepted(config(content))
    groups = {group["name"]: group for group in [*content["workers"], *content["bench"]]}
    assert prepared["max_workers"] == sum(len(group["hosts"]) for group in groups.values())
    if content["launcher"]["provider"] == "on-premise":
        assert set(prepared["provider"]["worker_ips"]) == {host for group in groups.values() for host in group["hosts"]}
        return
    types = prepared["available_node_types"]
    head = types.pop(prepared["head_node_type"])
    assert head["resources"]["CPU"] == (content["head"]["cpus"] if content["head"]["trials"] else 0)
    assert types.keys() == groups.keys()
    for name, group in groups.items():
        cpus = group["cpus"] if "min" in group else 0
        assert (types[name]["resources"]["CPU"], types[name]["resources"]["GPU"]) == (cpus, group["gpus"])
        assert (f"bench:{group.get('target')}" in types[name]["resources"]) == ("target" in group)
        assert types[name]["min_workers"] == group.get("min", group.get("count"))


def test_ray_start_takes_no_cpus_for_a_bench_node_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cloud ``ray start`` has no --num-cpus: the launcher hands a node its type's resources by the environment."""
    bench = config({})["available_node_types"]["bench"]["resources"]
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps(bench))
    found = ResourceAndLabelSpec().resolve(is_head=False).to_resource_dict()
    assert found.get("CPU", 0) == 0 and found["bench:onnxruntime-cpu"] == 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.12", ["--num-cpus=16", "--num-gpus=0"]),
        ("10.0.0.21", ["--num-cpus=8", "--num-gpus=2"]),
        ("10.0.0.31", ["--num-cpus=0", "--num-gpus=0", '--resources={"bench:onnxruntime-cpu": 1}']),
        ("10.0.0.110", None),  # which begins as another does
        ("10.0.0.1", None),
    ],
)
def test_an_on_premise_machine_tells_by_its_address_what_it_is(
    tmp_path: Path, address: str, expected: list[str] | None
) -> None:
    command = yaml.safe_load(render_ray_up(golden_spec("on-premise"))["ray-up.yaml"])["worker_start_ray_commands"][-1]
    fakes = {"hostname": f"echo 172.17.0.1 {address}", "ray": 'printf "%s\\n" "$RAY_AUTH_MODE" "$OPTUNA_STORAGE" "$@"'}
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".yolo-front").mkdir()
    (tmp_path / ".yolo-front" / "OPTUNA_STORAGE").write_text("postgresql://db")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "RAY_HEAD_IP": "10.0.0.10"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    if expected is None:
        assert done.returncode == 1 and "not among the hosts" in done.stderr
    else:
        assert done.stdout.split("\n")[:-1] == [
            "token",
            "postgresql://db",
            "start",
            "--address=10.0.0.10:6379",
            *expected,
        ]


def test_spot_machines_are_asked_for_in_each_clouds_way() -> None:
    workers = [{"name": "a", "spot": True}, {"name": "b"}]
    aws = config({"workers": workers})["available_node_types"]
    assert aws["a"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in aws["b"]["node_config"]
    gcp = config({"workers": workers, "launcher": {"provider": "gcp", "project": "p"}})["available_node_types"]
    assert gcp["a"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["b"]["node_config"]


@pytest.mark.parametrize(
    ("provider", "cpus", "memory", "instance"),
    [
        ("aws", 2, "8Gi", "m5.large"),
        ("aws", 2, "9Gi", "m5.xlarge"),
        ("aws", 5, "1Gi", "m5.2xlarge"),
        ("gcp", 64, "64Gi", "n2-standard-64"),
    ],
)
def test_the_smallest_machine_that_holds_a_node_is_taken(provider: str, cpus: int, memory: str, instance: str) -> None:
    content = {"workers": [{"cpus": cpus, "memory": memory}], "launcher": {"provider": provider, "project": "p"}}
    node = config(content)["available_node_types"]["workers"]["node_config"]
    assert instance in {node.get("InstanceType"), node.get("machineType")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"storage": {"kind": "volume"}}, "storage: the launcher makes no volumes"),
        ({"launcher": {"provider": "gcp"}}, r"launcher\.project is missing"),
        ({"launcher": {"provider": "on-premise"}}, r"launcher\.head_host is missing"),
        ({"launcher": {"provider": "on-premise", "head_host": "10.0.0.1"}}, "workers: on-premise it needs 1 hosts"),
        (
            {
                "workers": [{"hosts": ["10.0.0.1"]}],
                "bench": [],
                "launcher": {"provider": "on-premise", "head_host": "10.0.0.1"},
            },
            "a machine is named twice",
        ),
        ({"workers": [{"gpus": 1}]}, "workers: name the instance type that has its GPUs"),
        ({"workers": [{"cpus": 200}]}, "workers: no aws type known here has 200 CPUs and 8Gi"),
        ({"secrets": [{"env": "DB"}]}, "secrets: DB needs a file"),
        (
            {"workers": [{"gpus": 1, "instance": "g2-standard-4"}], "launcher": {"provider": "gcp", "project": "p"}},
            r"launcher\.machine_image",
        ),
    ],
)
def test_what_the_launcher_cannot_do_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(content)
