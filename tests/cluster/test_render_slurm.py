"""The batch script: what Slurm reads in it, and what it does when it runs, with fake srun, scontrol, ray and python."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from cluster.errors import UserError
from cluster.render.load import parse_spec
from cluster.render.slurm import render_slurm
from tests.cluster.specs import contents, flags, golden_spec

RECORD = """#!/bin/bash
# Writes how it was called, with what matters of its environment; all at once, since several do so at the same time.
printf -v line '%s\\t' "$(basename "$0")" "$RAY_AUTH_MODE" "$RAY_USAGE_STATS_ENABLED" "$RAY_ADDRESS" "$@"
echo "$line" >> "$LOG"
"""
FAKES = {
    # srun runs the command here, as it would on its node.
    "srun": 'while [[ "$1" == --* ]]; do shift; done\nexec "$@"\n',
    "scontrol": "echo node-1\necho node-2\n",
    "hostname": "echo 127.0.1.1 fe80::1 10.0.0.5\n",
    # `ray start --block` stays until it is ended.
    "ray": """
[ "$1" = start ] || exit 0
if [ "$2" = --head ]; then
    stat -c "%a %s" "$RAY_AUTH_TOKEN_PATH" "$(dirname "$RAY_AUTH_TOKEN_PATH")" > "$LOG.token" 2>/dev/null
    echo "$RAY_AUTH_TOKEN_PATH" > "$LOG.path"
fi
exec sleep 60
""",
    # `python - 3` waits until three nodes are there and the head has written, `python -m search` is the study.
    "python": """
ready() { [ -s "$LOG.path" ] && [ "$(grep -cP '^ray.*\tstart\t' "$LOG")" -ge "$1" ]; }
until [ "$1" = -m ] || ready "$2"; do sleep 0.1; done
[ "$1" != -m ] || eval "${STUDY:-true}"
""",
}


def directives(script: str) -> list[dict[str, str]]:
    """The options of each part of the job."""
    lines = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    parts: list[dict[str, str]] = [{}]
    for line in lines:
        if line == "hetjob":
            parts.append({})
        else:
            name, _, value = line.removeprefix("--").partition("=")
            parts[-1][name] = value
    return parts


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository, a home and the fakes."""
    (tmp_path / "bin").mkdir()
    for name, body in FAKES.items():
        (tmp_path / "bin" / name).write_text(RECORD + body)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("ACTIVE=$NOT_SET\n")  # such scripts use unset names
    return tmp_path


def start(place: Path, content: dict[str, Any], without: str = "", **environment: str) -> subprocess.Popen[str]:
    script = place / "slurm.sh"
    script.write_text(render_slurm(parse_spec(content, where="spec"))["slurm.sh"])
    slurm = {"SLURM_SUBMIT_DIR": str(place), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST_HET_GROUP_0": "node-[1-2]"}
    slurm.pop(without, None)
    basic = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "HOME": str(place / "home"), "LOG": str(place / "log")}
    return subprocess.Popen(
        ["bash", str(script)],
        env=basic | slurm | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[1]


def calls(place: Path, command: str) -> list[list[str]]:
    """How a fake was called: authentication, statistics, Ray's address, then the arguments."""
    lines = (line.split("\t")[:-1] for line in (place / "log").read_text().splitlines())
    return [line[1:] for line in lines if line[0] == command]


@settings(max_examples=20)
@given(contents().filter(lambda content: (content["storage"] or {"kind": "folder"})["kind"] in {"folder", "bucket"}))
def test_any_spec_makes_a_script_that_bash_reads_with_every_group_in_it(content: dict[str, Any]) -> None:
    script = render_slurm(parse_spec(content, where="spec"))["slurm.sh"]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    # Slurm stops to look for options at the first line of shell.
    assert "#SBATCH" not in script.partition("set -eo pipefail")[2]
    head, *parts = directives(script)
    assert (head["nodes"], head["cpus-per-task"]) == ("1", str(content["head"]["cpus"]))
    starts = re.findall(r"^srun (--het-group=[1-9].*)\n *(ray start .*) &$", script.replace("\\\n", "\n"), re.M)
    for number, (group, part, (srun, ray)) in enumerate(
        zip([*content["workers"], *content["bench"]], parts, starts, strict=True), start=1
    ):
        nodes = str(group.get("max", group.get("count")))
        assert (part["nodes"], part["cpus-per-task"]) == (nodes, str(group["cpus"]))
        assert part.get("gpus-per-node", "0") == str(group["gpus"])
        assert ("exclusive" in part) == group.get("alone", False)
        assert f"--het-group={number} --nodes={nodes} " in srun
        options = flags(shlex.split(ray))
        trains = "target" not in group
        assert (options["--num-cpus"], options["--num-gpus"]) == (
            str(group["cpus"] if trains else 0),
            str(group["gpus"]),
        )
        assert json.loads(options.get("--resources", "{}")) == ({} if trains else {f"bench:{group['target']}": 1})


def test_the_golden_script_is_bash() -> None:
    subprocess.run(["bash", "-n"], input=render_slurm(golden_spec("slurm"))["slurm.sh"], text=True, check=True)


def test_the_script_starts_the_head_then_its_workers_and_runs_the_study(place: Path) -> None:
    process = start(place, {})
    error = finish(process)
    assert process.returncode == 0, error
    rays = calls(place, "ray")
    address = "10.0.0.5:20007"  # the first address that other nodes can reach; a port of this job's own
    assert {tuple(call[:3]) for call in rays} == {("token", "0", address)}
    starts = [call[3:] for call in rays if call[3] == "start"]
    order = [call[3] if call[3] != "start" or "--head" in call else "worker" for call in rays]
    assert order.index("health-check") < order.index("worker")  # the head, in the background, has to answer first
    [head] = [call for call in starts if "--head" in call]
    assert "--num-cpus=0" in head and "--port=20007" in head
    assert sorted(f"--address={address}" in call for call in starts) == [False, True, True]
    assert sum('--resources={"bench:onnxruntime-cpu": 1}' in call for call in starts) == 1
    folders = [word for call in starts for word in call if word.startswith("--temp-dir=")]
    assert len(set(folders)) == 3  # two parts on one node would take each other's sockets
    waited, study = (call[3:] for call in calls(place, "python"))
    assert waited == ["-", "3"]  # head, worker, bench
    assert study == ["-m", "search", "demo", "--out", "results/demo"]


def test_the_token_is_private_and_goes_with_the_job(place: Path) -> None:
    assert finish(start(place, {})) == ""
    token, folder = ((place / "log.token").read_text()).splitlines()
    assert token == "600 64" and folder.startswith("700 ")
    path = Path((place / "log.path").read_text().strip())
    assert path.is_relative_to(place / "home") and not path.parent.exists()
    assert list((place / "home").iterdir()) == []


def test_a_study_that_is_there_goes_on_and_its_exit_code_is_the_jobs(place: Path) -> None:
    (place / "results" / "demo").mkdir(parents=True)
    (place / "results" / "demo" / "study.yaml").touch()
    process = start(place, {}, STUDY="exit 3")
    finish(process)
    assert process.returncode == 3
    assert calls(place, "python")[-1][3:] == ["-m", "search", "resume", "results/demo"]


def test_at_the_end_of_its_time_the_job_ends_the_study_and_cleans_up(place: Path) -> None:
    process = start(place, {}, STUDY='echo $$ > "$LOG.study"; exec sleep 60')
    deadline = time.monotonic() + 30
    while not (place / "log.study").exists() or not (place / "log.study").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # as `--signal=B:TERM@120` has Slurm do
    finish(process)
    assert process.returncode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((place / "log.study").read_text()), 0)
    assert list((place / "home").iterdir()) == []


def test_a_head_that_cannot_be_reached_is_said_at_once(place: Path) -> None:
    (place / "bin" / "hostname").write_text("#!/bin/sh\necho 127.0.1.1\n")
    process = start(place, {})
    assert "error: node-1 has no address that other nodes can reach" in finish(process)
    assert process.returncode == 1


@pytest.mark.parametrize("name", ["SLURM_SUBMIT_DIR", "SLURM_JOB_NODELIST_HET_GROUP_0"])
def test_where_slurm_did_not_start_it_the_script_says_what_is_missing(place: Path, name: str) -> None:
    process = start(place, {}, without=name)
    assert name in finish(process)
    assert process.returncode != 0 and not (place / "log").exists()


def test_a_secret_must_be_in_the_environment_or_in_its_file(place: Path) -> None:
    content = {"secrets": [{"env": "FROM_FILE", "file": "~/secret"}, {"env": "FROM_ENV"}]}
    (place / "home" / "secret").write_text("hush")
    process = start(place, content)
    assert "FROM_ENV: set it where you call sbatch" in finish(process)
    assert process.returncode != 0
    process = start(place, content, FROM_ENV="quiet", STUDY='[ "$FROM_FILE$FROM_ENV" = hushquiet ] || exit 9')
    finish(process)
    assert process.returncode == 0


def test_without_authentication_no_token_is_made(place: Path) -> None:
    finish(start(place, {"auth": {"token": False}}))
    assert {call[0] for call in calls(place, "ray")} == {"disabled"}


@pytest.mark.parametrize("storage", [{"kind": "volume"}, {"kind": "nfs", "server": "nas", "path": "/x"}])
def test_slurm_mounts_nothing(storage: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="storage: on Slurm use kind folder"):
        render_slurm(parse_spec({"storage": storage}, where="spec"))


def test_a_script_is_written_so_that_it_can_be_run(tmp_path: Path) -> None:
    from cluster.render.write import write_files

    [path] = write_files(render_slurm(golden_spec("default")), tmp_path, force=False)
    assert path.stat().st_mode & stat.S_IXUSR
