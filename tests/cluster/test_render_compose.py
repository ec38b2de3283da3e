"""The compose file against the published schema, and the Dockerfile against this repository."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings

from cluster.render.compose import Build, render_compose
from cluster.render.load import parse_spec
from cluster.render.spec import ClusterSpec
from tests.cluster.schemas import COMPOSE
from tests.cluster.specs import contents, flags, golden_spec

ROOT = Path(__file__).resolve().parents[2]


def document(spec: ClusterSpec) -> dict[str, Any]:
    return yaml.safe_load(render_compose(spec)["compose.yaml"])


def check(content: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(COMPOSE).validate(content)
    for service in content["services"].values():
        # What a service refers to must be there.
        assert set(service.get("secrets", [])) <= content.get("secrets", {}).keys()
        named = {volume["source"] for volume in service.get("volumes", []) if volume["type"] == "volume"}
        assert named <= content.get("volumes", {}).keys()
        assert service.get("depends_on", {}).keys() <= content["services"].keys()


@pytest.mark.parametrize("case", ["default", "compose"])
def test_the_file_keeps_the_published_schema(case: str) -> None:
    check(document(golden_spec(case)))


@settings(max_examples=25)
@given(contents())
def test_any_spec_makes_a_file_with_every_group_in_it(content: dict[str, Any]) -> None:
    found = document(parse_spec(content, where="spec"))
    check(found)
    groups = {group["name"]: group for group in [*content["workers"], *content["bench"]]}
    assert found["services"].keys() == {"head", "study", *groups}
    for name, group in groups.items():
        service = found["services"][name]
        options = flags(service["command"])
        trains = "target" not in group
        assert (options["--num-cpus"], options["--num-gpus"]) == (
            str(group["cpus"] if trains else 0),
            str(group["gpus"]),
        )
        assert json.loads(options.get("--resources", "{}")) == ({} if trains else {f"bench:{group['target']}": 1})
        assert service["deploy"]["replicas"] == group.get("max", group.get("count"))
        reserved = service["deploy"]["resources"].get("reservations", {"devices": [{"count": 0}]})
        assert reserved["devices"][0]["count"] == group["gpus"]
        assert service["environment"]["RAY_USAGE_STATS_ENABLED"] == "0"
    mode = "token" if content["auth"]["token"] else "disabled"
    assert {service["environment"]["RAY_AUTH_MODE"] for service in found["services"].values()} == {mode}


def test_only_this_machine_reaches_the_dashboard() -> None:
    services = document(ClusterSpec())["services"]
    assert services["head"]["ports"] == ["127.0.0.1:8265:8265"]
    assert not [name for name, service in services.items() if "ports" in service and name != "head"]


def interpolated(text: str) -> str:
    """What compose hands on: $$ is a $, and a $ by itself begins a variable, of which a command of ours has none."""
    assert "$" not in text.replace("$$", "")
    return text.replace("$$", "$")


def test_a_secret_that_is_a_file_reaches_ray_in_its_environment(tmp_path: Path) -> None:
    service = document(golden_spec("compose"))["services"]["cpu"]
    (tmp_path / "OPTUNA_STORAGE").write_text("postgresql://db")
    command = [interpolated(word).replace("/run/secrets", str(tmp_path)) for word in service["command"]]
    (tmp_path / "ray").write_text('#!/bin/sh\nprintf "%s\\n" "$OPTUNA_STORAGE" "$@"\n')
    (tmp_path / "ray").chmod(0o755)
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, check=True
    )
    secret, *arguments = done.stdout.splitlines()
    assert secret == "postgresql://db"
    assert arguments == ["start", "--address=head:6379", "--block", "--num-cpus=2", "--num-gpus=0"]
    assert service["environment"]["AWS_SECRET_ACCESS_KEY"].startswith("${AWS_SECRET_ACCESS_KEY:?")


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], " ".join(line.split()[1:])) for line in joined.splitlines()]


def test_the_image_is_this_repository_without_development_tools_for_a_user_without_rights() -> None:
    files = render_compose(ClusterSpec())
    steps = instructions(files["Dockerfile"])
    assert steps[0] == ("FROM", "python:3.11-slim")
    assert [value for name, value in steps if name == "USER"] == ["1000:1000"]
    assert max(i for i, step in enumerate(steps) if step[0] == "RUN") < steps.index(("USER", "1000:1000"))
    copied = [word for name, value in steps if name == "COPY" for word in value.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    allowed = [line[1:] for line in files["Dockerfile.dockerignore"].splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(allowed) and files["Dockerfile.dockerignore"].startswith("*\n")
    [install] = [value for name, value in steps if name == "RUN" and "pip install" in value]
    assert "--constraint constraints.txt" in install and "[dev]" not in install


def test_the_image_has_the_ray_that_is_tested() -> None:
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")]
    assert pinned == [f"ray=={ClusterSpec().ray_version}"]


def test_torch_comes_for_cpus_unless_a_group_has_gpus() -> None:
    assert "whl/cpu" in render_compose(ClusterSpec())["Dockerfile"]
    assert "whl/cpu" not in render_compose(golden_spec("compose"))["Dockerfile"]


def test_the_repository_is_found_from_where_the_files_are() -> None:
    build = Build(context="..", dockerfile="deploy/Dockerfile")
    found = yaml.safe_load(render_compose(ClusterSpec(), build)["compose.yaml"])
    assert found["services"]["head"]["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}
