"""The configuration of Ray's cluster launcher, for ``ray up``: AWS, GCP and machines of one's own.

Source of the shape: ``ray/autoscaler/ray-schema.json`` and the ``defaults.yaml`` beside it, in the installed Ray.
The launcher starts the cluster; a study comes to it by ``python -m cluster submit``.
"""

from __future__ import annotations

import shlex
from typing import Any

from cluster.errors import UserError
from cluster.render.instances import instance_type
from cluster.render.job import MOUNT, auth_mode, environment, mount
from cluster.render.nodes import PORT, Node, group_nodes, head_node, ray_start
from cluster.render.spec import ClusterSpec, Folder, Nfs, Volume
from cluster.render.text import to_yaml

Document = dict[str, Any]

_TOKEN = "~/.ray/auth_token"
_SECRETS = "~/.yolo-front"
_HEAD = ("--head", f"--port={PORT}", "--autoscaling-config=~/ray_bootstrap_config.yaml")
_WORKER = (f"--address=$RAY_HEAD_IP:{PORT}",)
_REGIONS = {"aws": "us-west-2", "gcp": "us-west1"}
_GCP_IMAGE = "projects/deeplearning-platform-release/global/images/family/common-cpu"
# What the head needs to start and stop machines.
_CLIENTS = {"aws": "boto3>=1.26", "gcp": "google-api-python-client>=2"}


def render_ray_up(spec: ClusterSpec) -> dict[str, str]:
    """``ray-up.yaml`` for ``ray up``."""
    if isinstance(spec.storage, Volume):
        raise UserError("storage: the launcher makes no volumes; use kind nfs, folder or bucket")
    provider = spec.launcher.provider
    config: Document = {
        "cluster_name": spec.name,
        "max_workers": sum(node.most for node in group_nodes(spec)),
        "idle_timeout_minutes": spec.idle_minutes,
        "provider": _provider(spec),
        "auth": _ssh(spec),
        "docker": _docker(spec),
        **({} if provider == "on-premise" else _node_types(spec)),
        "file_mounts": _files(spec),
        "initialization_commands": _mount_commands(spec),
        "setup_commands": [],  # the image has everything; the launcher's defaults would install a nightly Ray
        "head_setup_commands": [] if provider == "on-premise" else [f"pip install --user '{_CLIENTS[provider]}'"],
        "worker_setup_commands": [],
        "head_start_ray_commands": ["ray stop", _prelude(spec) + _start(head_node(spec), *_HEAD)],
        "worker_start_ray_commands": ["ray stop", _prelude(spec) + _worker_start(spec)],
    }
    header = "Made by `python -m cluster render`; see docs/cluster-render.md. Start it by: ray up ray-up.yaml"
    return {"ray-up.yaml": to_yaml(config, header=header)}


def _provider(spec: ClusterSpec) -> Document:
    launcher = spec.launcher
    if launcher.provider == "on-premise":
        if launcher.head_host is None:
            raise UserError("launcher.head_host is missing: the IP address of the first on-premise machine")
        hosts = [host for node in group_nodes(spec) for host in _hosts(node)]
        if len({launcher.head_host, *hosts}) != 1 + len(hosts):
            raise UserError("hosts: a machine is named twice; each is the head or of one group")
        return {"type": "local", "head_ip": launcher.head_host, "worker_ips": hosts}
    region = launcher.region or _REGIONS[launcher.provider]
    if launcher.provider == "aws":
        # Stopped machines still cost their disks.
        zone = {"availability_zone": launcher.zone} if launcher.zone else {}
        return {"type": "aws", "region": region, **zone, "cache_stopped_nodes": False}
    if launcher.project is None:
        raise UserError("launcher.project is missing: the id of the GCP project")
    zone = launcher.zone or f"{region}-a"
    return {"type": "gcp", "region": region, "availability_zone": zone, "project_id": launcher.project}


def _hosts(node: Node) -> tuple[str, ...]:
    hosts = node.group.hosts
    if len(hosts) != node.most:
        raise UserError(
            f"{node.name}: on-premise it needs {node.most} hosts, as many as it has nodes; {len(hosts)} are given"
        )
    return hosts


def _ssh(spec: ClusterSpec) -> Document:
    key = spec.launcher.ssh_private_key
    return {"ssh_user": spec.launcher.ssh_user, **({"ssh_private_key": key} if key else {})}


def _docker(spec: ClusterSpec) -> Document:
    options = [f"--env {shlex.quote(f'{name}={value}')}" for name, value in environment(spec).items()]
    if isinstance(spec.storage, (Nfs, Folder)):
        options.append(f"--volume {mount(spec)}:{mount(spec)}")
    return {"image": spec.image, "container_name": spec.name, "pull_before_run": True, "run_options": options}


def _node_types(spec: ClusterSpec) -> Document:
    nodes = [head_node(spec), *group_nodes(spec)]
    return {"head_node_type": "head", "available_node_types": {node.name: _node_type(spec, node) for node in nodes}}


def _node_type(spec: ClusterSpec, node: Node) -> Document:
    bounds = (0, 0) if node.name == "head" else (node.least, node.most)
    return {
        "min_workers": bounds[0],
        "max_workers": bounds[1],
        "resources": {"CPU": node.cpus, "GPU": node.gpus, **node.resources},
        "node_config": _aws_node(spec, node) if spec.launcher.provider == "aws" else _gcp_node(spec, node),
    }


def _aws_node(spec: ClusterSpec, node: Node) -> Document:
    config: Document = {
        "InstanceType": instance_type("aws", node.name, node.machine),
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 150, "VolumeType": "gp3"}}],
    }
    if spec.launcher.machine_image:
        config["ImageId"] = spec.launcher.machine_image
    if node.spot:
        config["InstanceMarketOptions"] = {"MarketType": "spot"}
    return config


def _gcp_node(spec: ClusterSpec, node: Node) -> Document:
    image = spec.launcher.machine_image or _GCP_IMAGE
    if node.machine.gpus and image == _GCP_IMAGE:
        raise UserError(f"{node.name}: name an image with NVIDIA's driver and Docker, as launcher.machine_image")
    scheduling: Document = {}
    if node.machine.gpus:
        scheduling["onHostMaintenance"] = "TERMINATE"  # a machine with GPUs cannot be moved
    if node.spot:
        scheduling |= {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}
    disk = {"boot": True, "autoDelete": True, "initializeParams": {"diskSizeGb": 150, "sourceImage": image}}
    return {
        "machineType": instance_type("gcp", node.name, node.machine),
        "disks": [disk],
        **({"scheduling": scheduling} if scheduling else {}),
    }


def _files(spec: ClusterSpec) -> dict[str, str]:
    """Files of this machine that the launcher copies to every node: remote path to local path."""
    files = {_TOKEN: spec.auth.token_file} if spec.auth.token else {}
    for secret in spec.secrets:
        if secret.file is None:
            raise UserError(f"secrets: {secret.env} needs a file that the launcher copies, as `file: PATH`")
        files[f"{_SECRETS}/{secret.env}"] = secret.file
    return files


def _mount_commands(spec: ClusterSpec) -> list[str]:
    if not isinstance(spec.storage, Nfs):
        return []
    source = f"{spec.storage.server}:{spec.storage.path}"
    return [
        "command -v mount.nfs4 || (sudo apt-get update && sudo apt-get install --yes nfs-common)",
        f"sudo mkdir -p {MOUNT}",
        f"mountpoint -q {MOUNT} || sudo mount -t nfs4 {source} {MOUNT}",
    ]


def _prelude(spec: ClusterSpec) -> str:
    """Shell text before ``ray start``. The launcher sets RAY_USAGE_STATS_ENABLED by its own user's choice; not here."""
    exports = ["RAY_USAGE_STATS_ENABLED=0", "RAY_worker_niceness=0", f"RAY_AUTH_MODE={auth_mode(spec)}"]
    if spec.auth.token:
        exports.append(f"RAY_AUTH_TOKEN_PATH={_TOKEN}")
    exports += [f'{secret.env}="$(cat {_SECRETS}/{secret.env})"' for secret in spec.secrets]
    return f"ulimit -n 65536; export {' '.join(exports)}; "


def _worker_start(spec: ClusterSpec) -> str:
    if spec.launcher.provider != "on-premise":
        # What Ray may place there comes from the node type, in RAY_OVERRIDE_RESOURCES.
        return f"ray start {_WORKER[0]}"
    # On one's own machines the launcher knows a single node type, so each tells by its address what it is.
    cases: list[str] = []
    for node in group_nodes(spec):
        pattern = " | ".join(f'*" {host} "*' for host in _hosts(node))
        cases.append(f"{pattern}) {_start(node, *_WORKER)} ;;")
    unknown = '*) echo "this machine is not among the hosts of the cluster spec" >&2; exit 1 ;;'
    return f'case " $(hostname -I) " in {" ".join(cases)} {unknown} esac'


def _start(node: Node, *where: str) -> str:
    """``ray start`` as shell text; ``where`` is left to the shell, for its ``$`` and ``~``."""
    command = ray_start(node)
    return " ".join([*command[:2], *where, *map(shlex.quote, command[2:])])
