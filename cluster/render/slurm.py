"""A Slurm batch script: one heterogeneous job with a part for the head, each worker group and each bench group.

Source: ``sbatch(1)``, ``srun(1)`` and https://slurm.schedmd.com/heterogeneous_jobs.html. The script runs on the first
node of the first part, which is the head's.
"""

from __future__ import annotations

import shlex

from cluster.errors import UserError
from cluster.render.job import environment, study_command
from cluster.render.nodes import Node, group_nodes, head_node, ray_start
from cluster.render.spec import Bench, Bucket, ClusterSpec, Folder
from cluster.render.values import mebibytes

_PROLOGUE = """\
# Made by `python -m cluster render`; see docs/cluster-render.md. Submit it from the repository: sbatch slurm.sh
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:?this script runs by sbatch}"
"""

_CLEAN_UP = """\
stop() {
    status=$?
    trap - EXIT TERM
    running=$(jobs -p)
    [ -z "$running" ] || kill $running 2>/dev/null || true
    wait || true
    [ -z "${private:-}" ] || rm -rf -- "$private"
    exit "$status"
}
trap stop EXIT
"""

_NEW_TOKEN = """\
# A folder of this job's own, mode 700, which all nodes see. The token lives as long as the job.
private=$(mktemp -d "$HOME/.yolo-front.XXXXXXXX")
(umask 077; head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > "$private/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$private/token"
"""

_NO_TOKEN = """\
export RAY_AUTH_MODE=disabled
"""

_HEAD = """\
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_0" | awk 'NR == 1')
head_ip=$(srun --het-group=0 --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address |
    awk '{for (i = 1; i <= NF; i++) if ($i !~ /^127\\./ && $i !~ /:/) {print $i; exit}}')
[ -n "$head_ip" ] || { echo "error: $head has no address that other nodes can reach" >&2; exit 1; }
# A port and folders of this job's own: other jobs, and other parts of this one, may share a node.
port=$((20000 + SLURM_JOB_ID % 20000))
temporary="/tmp/ray-$SLURM_JOB_ID"
export RAY_ADDRESS="$head_ip:$port"
"""

_WAIT_FOR_HEAD = """\
for attempt in $(seq 60); do
    ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1 && break
    [ "$attempt" -lt 60 ] || { echo "error: the head did not start" >&2; exit 1; }
    sleep 2
done
"""

# How many trials fit at once is counted when the study starts.
_WAIT_FOR_NODES = """\
python - {count} <<'END'
import sys
import time

import ray

ray.init(log_to_driver=False, logging_level="ERROR")
deadline = time.monotonic() + 600
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    if time.monotonic() > deadline:
        sys.exit("error: some nodes did not join within 10 minutes")
    time.sleep(2)
END
"""

# The study is put in the background, since a shell acts on a signal only when no command is in its foreground.
_STUDY = """\
sh -c '{command}' &
study=$!
trap 'kill -TERM "$study" 2>/dev/null || true' TERM
wait "$study"
"""


def render_slurm(spec: ClusterSpec) -> dict[str, str]:
    """``slurm.sh`` for ``sbatch``: starts the cluster, runs the study or goes on with it, and takes all down again."""
    if spec.storage is not None and not isinstance(spec.storage, (Folder, Bucket)):
        raise UserError("storage: on Slurm use kind folder, with a path that all nodes see, or bucket")
    nodes = [head_node(spec), *group_nodes(spec)]
    root = spec.storage.path if isinstance(spec.storage, Folder) else "results"
    parts = [
        "#!/bin/bash",
        "\n#SBATCH hetjob\n".join(_directives(spec, node) for node in nodes),
        _PROLOGUE + _environment(spec),
        _CLEAN_UP + _token(spec),
        _HEAD
        + _start(0, nodes[0], "--head", "--include-dashboard=false", '--node-ip-address="$head_ip"', '--port="$port"'),
        _WAIT_FOR_HEAD + "".join(_start(part, node) for part, node in enumerate(nodes) if part > 0),
        _WAIT_FOR_NODES.format(count=sum(node.most for node in nodes)),
        _STUDY.format(command=study_command(spec, root)),
    ]
    return {"slurm.sh": "\n".join([parts[0], parts[1], "", *parts[2:]])}


def _directives(spec: ClusterSpec, node: Node) -> str:
    """The part of the job for ``node``; what holds for the whole job is said in the head's part, which is the first."""
    options: dict[str, str | int | None] = {}
    if node.name == "head":
        options |= {
            "job-name": spec.name,
            "output": f"{spec.name}-%j.log",
            "open-mode": "append",
            "signal": "B:TERM@120",
        }
    partition = None if node.name == "head" else node.group.partition
    options |= {
        "time": spec.slurm.time,
        "partition": partition or spec.slurm.partition,
        "account": spec.slurm.account,
        "qos": spec.slurm.qos,
        "nodes": node.most,
        "ntasks-per-node": 1,
        "cpus-per-task": node.machine.cpus,
        "mem": f"{mebibytes(node.machine.memory)}M",
        "gpus-per-node": node.machine.gpus or None,
    }
    flags = ["requeue", "no-kill"] if node.name == "head" else ["no-kill"]
    if isinstance(node.machine, Bench) and node.machine.alone:
        flags.append("exclusive")
    lines = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return "\n".join(f"#SBATCH {line}" for line in [*lines, *(f"--{flag}" for flag in flags)])


def _environment(spec: ClusterSpec) -> str:
    lines = [f"module load {module}" for module in spec.slurm.modules]
    if spec.slurm.activate:
        lines.append(f"source {_home(spec.slurm.activate)}")
    lines.append("set -u  # the scripts above may use names that are not set")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment(spec).items()]
    for secret in spec.secrets:
        if secret.file:
            lines += [f'{secret.env}="$(cat {_home(secret.file)})"', f"export {secret.env}"]
        else:
            lines += [f': "${{{secret.env}:?set it where you call sbatch}}"', f"export {secret.env}"]
    return "\n".join(lines) + "\n"


def _token(spec: ClusterSpec) -> str:
    if not spec.auth.token:
        return _NO_TOKEN
    if "token_file" in spec.auth.model_fields_set:
        return f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={_home(spec.auth.token_file)}\n"
    return _NEW_TOKEN


def _start(part: int, node: Node, *where: str) -> str:
    """Starts the nodes of one part, in the background. A node that is lost does not end the others."""
    machine = node.machine
    gpus = [f"--gpus-per-node={machine.gpus}"] if machine.gpus else []
    srun = [
        *("srun", f"--het-group={part}", f"--nodes={node.most}", "--ntasks-per-node=1"),
        *(f"--cpus-per-task={machine.cpus}", *gpus, "--no-kill", "--kill-on-bad-exit=0", "--wait=0"),
    ]
    place = where or ('--address="$RAY_ADDRESS"',)
    ray = ["ray", "start", *place, f'--temp-dir="$temporary-{part}"', "--block", *map(shlex.quote, ray_start(node)[2:])]
    return f"# {node.name}\n{' '.join(srun)} \\\n    {' '.join(ray)} &\n"


def _home(path: str) -> str:
    """A path for the shell; ``~`` works where a quoted one would not."""
    return f'"$HOME/{path[2:]}"' if path.startswith("~/") else path
