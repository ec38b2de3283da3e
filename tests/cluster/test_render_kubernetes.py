"""KubeRay's documents against its schema, and against Ray's own reader of them, the autoscaler's."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from subprocess import list2cmdline
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from cluster.errors import UserError
from cluster.render.command import Format
from cluster.render.formats import FORMATS
from cluster.render.kubernetes import render_raycluster, render_rayjob
from cluster.render.load import parse_spec
from cluster.render.spec import ClusterSpec
from tests.cluster import schemas
from tests.cluster.specs import CASES, KUBERNETES, contents, golden_spec, rendered


def documents(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


def check(document: dict[str, Any]) -> None:
    schema = schemas.BY_KIND[document["kind"]]
    jsonschema.Draft202012Validator(schema).validate(document)


def node_types(spec: ClusterSpec) -> dict[str, Any]:
    """What Ray's autoscaler, which runs in the head pod, reads from our RayCluster."""
    cluster = documents(render_raycluster(spec)["raycluster.yaml"])[-1]
    cluster["metadata"].setdefault("namespace", "default")
    return _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]


@pytest.mark.parametrize("case", [case for case, kinds in CASES.items() if set(kinds) >= set(KUBERNETES)])
@pytest.mark.parametrize("kind", KUBERNETES)
def test_the_documents_keep_the_published_schema(case: str, kind: Format) -> None:
    for document in documents(rendered(golden_spec(case), kind)):
        check(document)


@settings(max_examples=25)
@given(contents())
def test_any_spec_makes_documents_that_keep_the_schema(content: dict[str, Any]) -> None:
    spec = parse_spec(content, where="spec")
    for kind in KUBERNETES:
        for document in documents(rendered(spec, kind)):
            check(document)


@settings(max_examples=25)
@given(contents())
def test_ray_reads_every_group_of_the_spec_with_its_cpus_gpus_and_bounds(content: dict[str, Any]) -> None:
    types = node_types(parse_spec(content, where="spec"))
    head = content["head"]
    assert types.pop("headgroup")["resources"]["CPU"] == (head["cpus"] if head["trials"] else 0)
    for group in content["workers"]:
        found = types.pop(group["name"])
        assert (found["min_workers"], found["max_workers"]) == (group["min"], group["max"])
        assert (found["resources"]["CPU"], found["resources"]["GPU"]) == (group["cpus"], group["gpus"])
        assert not [name for name in found["resources"] if name.startswith("bench:")]
    for group in content["bench"]:
        found = types.pop(group["name"])
        assert found["resources"]["CPU"] == 0  # so that no trial is placed there
        assert found["resources"][f"bench:{group['target']}"] == 1
        assert (found["min_workers"], found["max_workers"]) == (group["count"], group["count"])
    assert types == {}


def test_the_shell_that_starts_ray_reads_the_custom_resource_as_json() -> None:
    cluster = documents(render_raycluster(ClusterSpec())["raycluster.yaml"])[-1]
    params = cluster["spec"]["workerGroupSpecs"][1]["rayStartParams"]
    # KubeRay writes " --name=value" for each into the command of `bash -lc`.
    line = " ".join(f"--{name}={value}" for name, value in params.items())
    [resources] = [word for word in shlex.split(line) if word.startswith("--resources=")]
    assert json.loads(resources.removeprefix("--resources=")) == {"bench:onnxruntime-cpu": 1}


def test_a_gpu_is_a_limit_of_the_container() -> None:
    cluster = documents(render_raycluster(golden_spec("gke"))["raycluster.yaml"])[-1]
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    container = groups["gpu-spot"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in groups["cpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize(("cloud", "tainted"), [("gke", True), ("eks", False), ("aks", True), ("karpenter", False)])
def test_spot_pods_go_to_spot_nodes_and_others_anywhere(cloud: str, tainted: bool) -> None:
    content = {"workers": [{"name": "a", "spot": True}, {"name": "b"}], "kubernetes": {"spot": cloud}}
    cluster = documents(render_raycluster(parse_spec(content, where="spec"))["raycluster.yaml"])[-1]
    spot, other = (group["template"]["spec"] for group in cluster["spec"]["workerGroupSpecs"][:2])
    [(key, value)] = spot["nodeSelector"].items()
    expected = {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
    assert spot.get("tolerations", []) == ([expected] if tainted else [])
    assert not other.keys() & {"nodeSelector", "tolerations"}


def test_spot_needs_to_know_how_the_cloud_marks_it() -> None:
    with pytest.raises(UserError, match=r"workers: workers is spot; .*kubernetes\.spot"):
        render_raycluster(parse_spec({"workers": [{"spot": True}]}, where="spec"))


def test_a_secret_on_kubernetes_needs_the_name_of_one() -> None:
    with pytest.raises(UserError, match="secrets: DB needs the name of a Kubernetes secret"):
        render_rayjob(parse_spec({"secrets": [{"env": "DB", "file": "x"}]}, where="spec"))


FAKE_PYTHON = '#!/bin/sh\necho "python $*" >> "$LOG"\nexit "$(cat "$CODE" 2>/dev/null || echo 0)"\n'


@pytest.mark.parametrize("there", [False, True])
def test_the_entrypoint_survives_all_its_shells_and_resumes_what_is_there(tmp_path: Path, there: bool) -> None:
    storage = tmp_path / "shared"
    study = {"storage": {"kind": "folder", "path": str(storage)}, "study": {"name": "s", "file": "study.yaml"}}
    document = documents(FORMATS[Format.RAYJOB](parse_spec(study, where="spec"))["rayjob.yaml"])[-1]
    (tmp_path / "python").write_text(FAKE_PYTHON)
    (tmp_path / "python").chmod(0o755)
    if there:
        (storage / "s").mkdir(parents=True)
        (storage / "s" / "study.yaml").touch()
    # KubeRay pastes the entrypoint into a shell line, `ray job submit` joins its words by list2cmdline, and the cluster
    # hands that to a shell once more.
    words = subprocess.run(
        ["bash", "-c", f'printf "%s\\0" {document["spec"]["entrypoint"]} ;'], capture_output=True, text=True, check=True
    ).stdout.split("\0")[:-1]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    subprocess.run(list2cmdline(words), shell=True, env=environment, check=True)  # noqa: S602 - as Ray does
    new = f"python -m search run {storage}/study.yaml --out {storage}/s\n"
    assert (tmp_path / "log").read_text() == (f"python -m search resume {storage}/s\n" if there else new)


@pytest.mark.parametrize(("resume_fails", "calls"), [(True, 2), (False, 1)])
def test_in_a_bucket_a_study_is_resumed_or_begun(tmp_path: Path, resume_fails: bool, calls: int) -> None:
    content = {"storage": {"kind": "bucket", "url": "s3://b/a"}, "study": {"name": "s", "file": "/opt/s.yaml"}}
    document = documents(render_rayjob(parse_spec(content, where="spec"))["rayjob.yaml"])[-1]
    fake = (
        '#!/bin/sh\necho "$*" >> "$LOG"\n[ "$3" != resume ]\n' if resume_fails else '#!/bin/sh\necho "$*" >> "$LOG"\n'
    )
    (tmp_path / "python").write_text(fake)
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    subprocess.run(["bash", "-c", document["spec"]["entrypoint"]], env=environment, check=True)
    log = (tmp_path / "log").read_text().splitlines()
    assert log == ["-m search resume s3://b/a/s", "-m search run /opt/s.yaml --out s3://b/a/s"][:calls]
