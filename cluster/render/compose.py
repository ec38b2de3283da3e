"""A compose file and the Dockerfile of its image: a whole cluster on one machine.

Source: https://github.com/compose-spec/compose-spec/blob/main/schema/compose-spec.json.
The Dockerfile's image is what KubeRay and Ray's launcher run, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.render.job import auth_mode, environment, mount, study_command
from cluster.render.nodes import DASHBOARD_PORT, PORT, Node, group_nodes, head_node, ray_start
from cluster.render.spec import Bucket, ClusterSpec, Folder, Nfs
from cluster.render.text import to_yaml
from cluster.render.values import mebibytes

Document = dict[str, Any]

_TOKEN = "ray_auth_token"
_CPU_TORCH = "--extra-index-url https://download.pytorch.org/whl/cpu"
_SHIPPED = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "spaces", "search", "cluster")

# bash and wget are what KubeRay's start command and probes call; libgl1 and libglib2.0-0 are OpenCV's.
_DOCKERFILE = """\
# Made by `python -m cluster render`; see docs/cluster-render.md. The build context is the repository.
FROM python:3.11-slim

RUN apt-get update \\
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 wget \\
    && rm -rf /var/lib/apt/lists/* \\
    && useradd --create-home --uid 1000 ray \\
    && install --directory --owner=ray --group=ray {mount}

WORKDIR /opt/yolo-front
COPY {files} ./
COPY spaces spaces
COPY search search
COPY cluster cluster

# For a machine with NVIDIA GPUs: --build-arg PIP_EXTRA=
ARG PIP_EXTRA="{pip_extra}"
RUN pip install --no-cache-dir --constraint constraints.txt $PIP_EXTRA . "ray[default]=={ray_version}"

ENV RAY_USAGE_STATS_ENABLED=0 \\
    YOLO_AUTOINSTALL=false
USER 1000:1000
WORKDIR /home/ray
CMD ["python", "-m", "search", "--help"]
"""


@dataclass(frozen=True, kw_only=True)
class Build:
    """Where things are: the repository as the compose file sees it, the Dockerfile as the repository does."""

    context: str = "."
    dockerfile: str = "Dockerfile"


def render_compose(spec: ClusterSpec, build: Build | None = None) -> dict[str, str]:
    """``compose.yaml``, ``Dockerfile`` and what the image leaves out."""
    build = build or Build()
    nodes = [head_node(spec), *group_nodes(spec)]
    services = {node.name: _node_service(spec, node) for node in nodes}
    services["head"]["build"] = {"context": build.context, "dockerfile": build.dockerfile}
    services["study"] = _study_service(spec)
    volumes = _named_volumes(spec)
    secrets = _named_secrets(spec)
    document: Document = {
        "name": spec.name,
        "services": services,
        **({"volumes": volumes} if volumes else {}),
        **({"secrets": secrets} if secrets else {}),
    }
    header = "Made by `python -m cluster render`; see docs/cluster-render.md."
    return {"compose.yaml": to_yaml(document, header=header), **_image_files(spec)}


def _image_files(spec: ClusterSpec) -> dict[str, str]:
    gpus = any(node.machine.gpus for node in group_nodes(spec))
    dockerfile = _DOCKERFILE.format(
        mount=mount(spec) or "/shared",
        files=" ".join(file for file in _SHIPPED if "." in file or file.isupper()),
        pip_extra="" if gpus else _CPU_TORCH,
        ray_version=spec.ray_version,
    )
    ignored = "\n".join(["*", *(f"!{name}" for name in _SHIPPED), "**/__pycache__"])
    return {"Dockerfile": dockerfile, "Dockerfile.dockerignore": ignored + "\n"}


def _node_service(spec: ClusterSpec, node: Node) -> Document:
    machine = node.machine
    limits: Document = {"cpus": str(machine.cpus), "memory": f"{mebibytes(machine.memory)}m"}
    resources: Document = {"limits": limits}
    if machine.gpus:
        device = {"driver": "nvidia", "count": machine.gpus, "capabilities": ["gpu"]}
        resources["reservations"] = {"devices": [device]}
    service = {
        **_common(spec),
        "restart": "unless-stopped",
        "shm_size": f"{mebibytes(machine.memory) // 3}m",  # Ray's object store takes 30 % of the memory
        "deploy": {"replicas": node.most, "resources": resources},
    }
    if node.name != "head":
        command = ray_start(node, f"--address=head:{PORT}", "--block")
        return {
            **service,
            "command": _after_secrets(spec, command),
            "depends_on": {"head": {"condition": "service_healthy"}},
        }
    command = ray_start(node, "--head", f"--port={PORT}", "--dashboard-host=0.0.0.0", "--block")
    return {
        **service,
        "command": _after_secrets(spec, command),
        "ports": [f"127.0.0.1:{DASHBOARD_PORT}:{DASHBOARD_PORT}"],
        "healthcheck": {
            "test": ["CMD", "ray", "health-check", "--address", f"localhost:{PORT}"],
            "interval": "5s",
            "timeout": "10s",
            "retries": 30,
        },
    }


def _study_service(spec: ClusterSpec) -> Document:
    """Hands the study to the cluster as a job, shows its log and ends with it."""
    nodes = [head_node(spec), *group_nodes(spec)]
    started = {
        node.name: {"condition": "service_healthy" if node.name == "head" else "service_started"} for node in nodes
    }
    submit = ["ray", "job", "submit", "--address", f"http://head:{DASHBOARD_PORT}"]
    environment = '{"env_vars": {"RAY_ADDRESS": "auto"}}'
    command = [*submit, "--runtime-env-json", environment, "--", "sh", "-c", study_command(spec, mount(spec))]
    return {**_common(spec), "restart": "no", "depends_on": started, "command": command}


def _common(spec: ClusterSpec) -> Document:
    variables = {**environment(spec), "RAY_AUTH_MODE": auth_mode(spec)}
    names = [secret.env for secret in spec.secrets if secret.file]
    if spec.auth.token:
        variables["RAY_AUTH_TOKEN_PATH"] = f"/run/secrets/{_TOKEN}"
        names = [_TOKEN, *names]
    for secret in spec.secrets:
        if not secret.file:
            variables[secret.env] = f"${{{secret.env}:?set it where you call docker compose}}"
    return {
        "image": spec.image,
        "environment": variables,
        **({"secrets": names} if names else {}),
        **({} if isinstance(spec.storage, Bucket) else {"volumes": [_mounted(spec)]}),
    }


def _after_secrets(spec: ClusterSpec, command: list[str]) -> list[str]:
    """The command, with the secrets that come as files put into its environment first."""
    files = [secret.env for secret in spec.secrets if secret.file]
    if not files:
        return command
    # $$ is compose's way to write a $ that the container's shell reads.
    exports = " ".join(f'{name}="$$(cat /run/secrets/{name})"' for name in files)
    return ["sh", "-c", f'export {exports}; exec "$$@"', "sh", *command]


def _mounted(spec: ClusterSpec) -> Document:
    if isinstance(spec.storage, Folder):
        return {"type": "bind", "source": spec.storage.path, "target": spec.storage.path}
    return {"type": "volume", "source": "storage", "target": mount(spec)}


def _named_volumes(spec: ClusterSpec) -> Document:
    match spec.storage:
        case Folder() | Bucket():
            return {}
        case Nfs(server=server, path=path):
            options = {"type": "nfs", "o": f"addr={server},rw,nfsvers=4", "device": f":{path}"}
            return {"storage": {"driver": "local", "driver_opts": options}}
        case _:
            return {"storage": {}}


def _named_secrets(spec: ClusterSpec) -> Document:
    files: list[tuple[str, str]] = [(_TOKEN, spec.auth.token_file)] if spec.auth.token else []
    files += [(secret.env, secret.file) for secret in spec.secrets if secret.file]
    return {name: {"file": _host_path(path)} for name, path in files}


def _host_path(path: str) -> str:
    """A path of the machine on which compose is called; ``~`` is the caller's home."""
    return f"${{HOME}}/{path[2:]}" if path.startswith("~/") else path
