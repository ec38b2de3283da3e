"""The cluster spec: what loads, and a refusal that names the key for all the rest and never repeats a secret."""

from __future__ import annotations

import re
import secrets
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.errors import UserError
from cluster.render.command import Format
from cluster.render.load import load_spec, parse_spec
from cluster.render.secret import looks_like_secret
from cluster.render.spec import ClusterSpec
from cluster.render.values import mebibytes
from tests.cluster.specs import CASES, contents, golden_spec, rendered


def refusal(content: Any) -> str:
    with pytest.raises(UserError) as caught:
        parse_spec(content, where="spec")
    return str(caught.value)


def test_no_spec_and_an_empty_one_are_the_default() -> None:
    assert load_spec(None) == golden_spec("default") == ClusterSpec()


@pytest.mark.parametrize("case", CASES)
def test_the_examples_load(case: str) -> None:
    assert golden_spec(case).workers


def test_the_spec_in_its_document_is_accepted_by_the_formats_it_is_for() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cluster-render.md").read_text(encoding="utf-8")
    block = re.search(r"^    # cluster\.yaml(?:\n    .*)*", text, re.M)
    assert block is not None
    spec = parse_spec(yaml.safe_load(re.sub(r"^    ", "", block[0], flags=re.M)), where="docs")
    for kind in (Format.RAYCLUSTER, Format.RAYJOB, Format.RAY_UP, Format.COMPOSE):
        assert spec.name in rendered(spec, kind)


@settings(max_examples=25)
@given(contents())
def test_a_spec_survives_its_way_through_plain_data(content: dict[str, Any]) -> None:
    spec = parse_spec(content, where="spec")
    assert ClusterSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "spec is no mapping"),
        ({"wrokers": []}, "unknown key wrokers; allowed are name, image,"),
        ({"workers": [{"cpu": 1}]}, "unknown key workers.0.cpu; allowed are cpus, gpus,"),
        ({"storage": {"kind": "nfs", "server": "a", "path": "/x", "size": 1}}, "allowed are kind, server, path"),
        ({"storage": {"kind": "nfs", "path": "/x"}}, "storage.server is missing"),
        ({"storage": {"kind": "tape"}}, "storage: "),
        ({"name": "Cells"}, "name: "),
        ({"name": "a" * 48}, "name: "),
        ({"name": "1a"}, "name: "),
        ({"name": "a\n"}, "name: "),
        ({"workers": []}, "workers: "),
        ({"workers": [{"memory": "8GB"}]}, "workers.0.memory: "),
        ({"workers": [{"memory": 8}]}, "workers.0.memory: "),
        ({"workers": [{"cpus": 0}]}, "workers.0.cpus: "),
        ({"workers": [{"min": 3, "max": 2}]}, "workers.0: max is at least min"),
        ({"workers": [{"min": 0}]}, "workers.0: max is at least min and at least 1"),
        ({"workers": [{"name": "a"}, {"name": "a"}]}, "the group a is there twice"),
        ({"workers": [{"name": "head"}]}, "the group head is there twice, or its name is taken"),
        ({"workers": [{"hosts": ["node1"]}]}, "workers.0.hosts.0: not an IP address"),
        ({"workers": [{"node_selector": {"a b": "c"}}]}, "workers.0.node_selector"),
        ({"bench": [{"target": "A B"}]}, "bench.0.target: "),
        ({"study": {"file": "../x.yaml"}}, "study.file: a path may not go up"),
        ({"study": {"name": "a; rm -rf ~"}}, "study.name: "),
        ({"study": {"file": "a'b.yaml"}}, "study.file: "),
        ({"storage": {"kind": "bucket", "url": "s3://key:word@bucket"}}, "storage.url looks like a secret"),
        ({"storage": {"kind": "bucket", "url": "s3://bucket"}}, "study.file is missing"),
        ({"env": {"A": "$(reboot)"}}, "env.A: "),
        ({"env": {"A": "1"}, "secrets": [{"env": "A"}]}, "the environment variable A is there twice"),
        ({"env": {"RAY_USAGE_STATS_ENABLED": "1"}}, "env: RAY_USAGE_STATS_ENABLED is set here already"),
        ({"secrets": [{"env": "RAY_AUTH_TOKEN"}]}, "secrets: RAY_AUTH_TOKEN is set here already"),
        ({"slurm": {"time": "tomorrow"}}, "slurm.time: "),
    ],
)  # fmt: skip
def test_a_refusal_names_the_key(content: Any, message: str) -> None:
    assert message in refusal(content)


@pytest.mark.parametrize(
    "name", ["DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "HF_TOKEN", "my_credentials"]
)
def test_a_variable_that_is_a_secret_by_its_name_is_refused_without_its_value(name: str) -> None:
    text = refusal({"env": {name: "hunter2"}})
    assert f"env: {name} is a secret by its name" in text and "hunter2" not in text


@pytest.mark.parametrize("name", ["GIT_TOKEN_PATH", "PASSWORD_FILE", "OMP_NUM_THREADS", "KEYBOARD"])
def test_the_path_of_a_secret_is_none(name: str) -> None:
    assert parse_spec({"env": {name: "/x"}}, where="spec").env == {name: "/x"}


KNOWN = [
    "AKIA" + "ABCDEFGHIJKLMNOP",
    "ghp_" + "a1B2" * 9,
    "hf_" + "aB3d" * 9,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig",
    "-----BEGIN RSA PRIVATE KEY-----",
    "postgresql://user:word@db/x",
    "redis://:word@db",
]
_shapes = st.sampled_from(["hex", "url", "aws"])


def random_secret(shape: str) -> str:
    """As credentials are made: 32 random bytes, or letters and digits; one in a thousand would have no digit."""
    if shape == "hex":
        return secrets.token_hex(32)
    alphabet, length = string.ascii_letters + string.digits, 40
    if shape == "url":
        alphabet, length = alphabet + "_", 43
    return "".join(secrets.choice(alphabet) for _ in range(length - 2)) + "a7"


# Every place in a spec where text may stand, and two where none may.
PLACES: list[list[Any]] = [
    ["name"], ["image"], ["workers", 0, "name"], ["workers", 0, "instance"], ["bench", 0, "target"],
    ["storage", "path"], ["study", "name"], ["study", "file"], ["auth", "token_file"], ["env", "A"],
    ["secrets", 0, "secret"],
    ["secrets", 0, "key"], ["secrets", 0, "file"], ["secrets", 0, "env"], ["kubernetes", "namespace"],
    ["launcher", "project"], ["slurm", "account"], ["slurm", "modules", 0], ["secrets", 0, "value"], ["token"],
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
@settings(max_examples=6)
@given(shape=_shapes)
def test_a_secret_is_refused_wherever_it_stands_and_not_repeated(place: list[Any], shape: str) -> None:
    for value in [random_secret(shape), *KNOWN]:
        content: Any = value
        for step in reversed(place):
            content = [content] if isinstance(step, int) else {step: content}
        text = refusal(content)
        assert value not in text
        assert "looks like a secret" in text and ".".join(map(str, place)) in text


def test_with_debug_the_traceback_does_not_repeat_it_either() -> None:
    value = KNOWN[0]  # short, since pydantic cuts long ones
    with pytest.raises(ValidationError) as caught:
        ClusterSpec.model_validate({"token": value})
    assert value not in str(caught.value)


def test_a_key_that_is_a_secret_is_not_repeated() -> None:
    value = secrets.token_hex(32)
    assert value not in refusal({"env": {value: "1"}})


def test_a_line_that_is_no_yaml_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("name: a\ntoken: hunter2: {\n")
    with pytest.raises(UserError) as caught:
        load_spec(tmp_path / "cluster.yaml")
    assert str(caught.value) == f"{tmp_path / 'cluster.yaml'} is not valid YAML, line 2"


@pytest.mark.parametrize(
    "text",
    [
        "europe-docker.pkg.dev/lab/images/yolo-front@sha256:" + "0123456789abcdef" * 4,
        "projects/deeplearning-platform-release/global/images/family/common-cpu",
        "pvc-3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "arn/aws/iam/role-for-studies-of-the-vision-group",
        "fs-0123456789abcdef0.efs.eu-west-1.amazonaws.com",
    ],
)
def test_long_names_are_no_secrets(text: str) -> None:
    assert not looks_like_secret(text)


def test_a_missing_spec_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no cluster spec"):
        load_spec(tmp_path / "none.yaml")


@pytest.mark.parametrize(("memory", "expected"), [("512Mi", 512), ("4Gi", 4096), ("2Ti", 2 * 1024 * 1024)])
def test_memory_in_mebibytes(memory: str, expected: int) -> None:
    assert mebibytes(memory) == expected
