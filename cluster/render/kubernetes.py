"""RayCluster and RayJob of KubeRay (``ray.io/v1``, KubeRay 1.5.1 or newer for token authentication).

Source of the shape: ``ray-operator/apis/ray/v1`` and ``ray-operator/controllers/ray/utils/validation.go`` of
https://github.com/ray-project/kuberay.
"""

from __future__ import annotations

import json
from typing import Any

from cluster.errors import UserError
from cluster.render.job import auth_mode, environment, mount, study_command
from cluster.render.nodes import DASHBOARD_PORT, PORT, Node, group_nodes, head_node, scales
from cluster.render.spec import Bench, Bucket, ClusterSpec, Folder, Nfs, Volume
from cluster.render.text import to_yaml

Document = dict[str, Any]

# The label of a cloud's spot nodes; True where the cloud taints them with it as well.
_SPOT: dict[str, tuple[str, str, bool]] = {
    "gke": ("cloud.google.com/gke-spot", "true", True),
    "eks": ("eks.amazonaws.com/capacityType", "SPOT", False),
    "aks": ("kubernetes.azure.com/scalesetpriority", "spot", True),
    "karpenter": ("karpenter.sh/capacity-type", "spot", False),
}
_USER = 1000  # of the Dockerfile that `render compose` writes
_PART_OF = "app.kubernetes.io/part-of"
_MADE_BY = "Made by `python -m cluster render`; see docs/cluster-render.md."


def render_raycluster(spec: ClusterSpec) -> dict[str, str]:
    """A RayCluster that waits for jobs, and the claim of its storage."""
    cluster: Document = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(spec),
        "spec": _cluster_spec(spec),
    }
    return {"raycluster.yaml": to_yaml(*_claims(spec), cluster, header=_MADE_BY)}


def render_rayjob(spec: ClusterSpec) -> dict[str, str]:
    """A RayJob that starts a cluster, runs the study to its end and takes the cluster down again.

    A retry is a new cluster; it goes on with the study, whose folder is in the storage.
    """
    job: Document = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": _metadata(spec),
        "spec": {
            "entrypoint": f"sh -c '{study_command(spec, mount(spec))}'",
            "runtimeEnvYAML": "env_vars:\n  RAY_ADDRESS: auto\n",
            "submissionMode": "K8sJobMode",
            "backoffLimit": spec.kubernetes.retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 60 * spec.kubernetes.keep_minutes,
            "rayClusterSpec": _cluster_spec(spec),
        },
    }
    return {"rayjob.yaml": to_yaml(*_claims(spec), job, header=_MADE_BY)}


def _metadata(spec: ClusterSpec, suffix: str = "") -> Document:
    namespace = {"namespace": spec.kubernetes.namespace} if spec.kubernetes.namespace else {}
    return {"name": spec.name + suffix, **namespace, "labels": {_PART_OF: spec.name}}


def _cluster_spec(spec: ClusterSpec) -> Document:
    scaling: Document = {"enableInTreeAutoscaling": False}
    if scales(spec):
        scaling = {
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {
                "idleTimeoutSeconds": round(60 * spec.idle_minutes),
                "env": [{"name": name, "value": value} for name, value in environment(spec).items()],
            },
        }
    return {
        "rayVersion": spec.ray_version,
        "authOptions": {"mode": auth_mode(spec)},  # the operator makes the token and hands it to all pods
        **scaling,
        "headGroupSpec": _head_group(spec),
        "workerGroupSpecs": [_worker_group(spec, node) for node in group_nodes(spec)],
    }


def _head_group(spec: ClusterSpec) -> Document:
    node = head_node(spec)
    ports = [("gcs", PORT), ("dashboard", DASHBOARD_PORT), ("client", 10001)]
    pod = _pod(spec, node)
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": port, "name": name} for name, port in ports]
    return {"rayStartParams": {"dashboard-host": "0.0.0.0", **_start_params(node)}, "template": pod}


def _worker_group(spec: ClusterSpec, node: Node) -> Document:
    return {
        "groupName": node.name,
        "replicas": node.least,
        "minReplicas": node.least,
        "maxReplicas": node.most,
        "rayStartParams": _start_params(node),
        "template": _pod(spec, node),
    }


def _start_params(node: Node) -> dict[str, str]:
    params = {"num-cpus": str(node.cpus), "num-gpus": str(node.gpus)}
    if node.resources:
        # KubeRay pastes the value into a shell command as it is, and Ray's autoscaler reads it in this form only.
        params["resources"] = json.dumps(json.dumps(node.resources))
    return params


def _pod(spec: ClusterSpec, node: Node) -> Document:
    labels = {_PART_OF: spec.name, "app.kubernetes.io/component": node.name}
    volumes, mounts = _volumes(spec)
    kubernetes = spec.kubernetes
    return {
        "metadata": {"labels": labels},
        "spec": {
            **({"serviceAccountName": kubernetes.service_account} if kubernetes.service_account else {}),
            **({"imagePullSecrets": [{"name": kubernetes.image_pull_secret}]} if kubernetes.image_pull_secret else {}),
            **_placement(spec, node),
            "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "fsGroup": _USER},
            "containers": [
                {
                    "name": "ray-head" if node.name == "head" else "ray-worker",
                    "image": spec.image,
                    "imagePullPolicy": "IfNotPresent",
                    "env": _env(spec),
                    "resources": _resources(node),
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": mounts,
                }
            ],
            "volumes": volumes,
        },
    }


def _resources(node: Node) -> Document:
    """Requests equal limits: guaranteed pods, which a bench node needs for cores of its own."""
    machine = node.machine
    wanted = {"cpu": str(machine.cpus), "memory": machine.memory}
    if machine.gpus:
        wanted["nvidia.com/gpu"] = str(machine.gpus)
    return {"limits": wanted, "requests": wanted}


def _env(spec: ClusterSpec) -> list[Document]:
    plain: list[Document] = [{"name": name, "value": value} for name, value in environment(spec).items()]
    for secret in spec.secrets:
        if secret.secret is None:
            raise UserError(f"secrets: {secret.env} needs the name of a Kubernetes secret, as `secret: NAME`")
        reference = {"name": secret.secret, "key": secret.key}
        plain.append({"name": secret.env, "valueFrom": {"secretKeyRef": reference}})
    return plain


def _placement(spec: ClusterSpec, node: Node) -> Document:
    selector = dict(node.machine.node_selector)
    tolerations = [toleration.model_dump(exclude_none=True) for toleration in node.machine.tolerations]
    if node.spot and spec.kubernetes.spot:
        label, value, tainted = _SPOT[spec.kubernetes.spot]
        selector[label] = value
        if tainted:
            tolerations.append({"key": label, "operator": "Equal", "value": value, "effect": "NoSchedule"})
    elif node.spot and not selector:
        raise UserError(
            f"workers: {node.name} is spot; say how this cloud marks its spot nodes, by kubernetes.spot "
            f"({', '.join(_SPOT)}) or by the group's node_selector"
        )
    placement: Document = {}
    if selector:
        placement["nodeSelector"] = selector
    if tolerations:
        placement["tolerations"] = tolerations
    if isinstance(node.machine, Bench):
        placement["affinity"] = {"podAntiAffinity": _apart(spec, alone=node.machine.alone)}
    return placement


def _apart(spec: ClusterSpec, *, alone: bool) -> Document:
    """Bench pods keep away from the cluster's other pods: always if ``alone``, else where there is room."""
    term = {"labelSelector": {"matchLabels": {_PART_OF: spec.name}}, "topologyKey": "kubernetes.io/hostname"}
    if alone:
        return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _volumes(spec: ClusterSpec) -> tuple[list[Document], list[Document]]:
    """Volumes and mounts. Ray's object store and data loaders need more shared memory than a pod's 64 MB."""
    volumes: list[Document] = [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}]
    mounts: list[Document] = [{"name": "shared-memory", "mountPath": "/dev/shm"}]
    source: Document
    match spec.storage:
        case Bucket():
            return volumes, mounts
        case Folder(path=path):
            source = {"hostPath": {"path": path, "type": "Directory"}}
        case Nfs(server=server, path=path):
            source = {"nfs": {"server": server, "path": path}}
        case Volume() | None:
            claim = spec.storage.claim if spec.storage else None
            source = {"persistentVolumeClaim": {"claimName": claim or f"{spec.name}-storage"}}
    volumes.append({"name": "storage", **source})
    mounts.append({"name": "storage", "mountPath": mount(spec)})
    return volumes, mounts


def _claims(spec: ClusterSpec) -> list[Document]:
    """The claim of a volume that is not there yet."""
    volume = spec.storage or Volume()
    if not isinstance(volume, Volume) or volume.claim:
        return []
    storage_class = {"storageClassName": volume.storage_class} if volume.storage_class else {}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": _metadata(spec, "-storage"),
            "spec": {
                "accessModes": [volume.access],
                **storage_class,
                "resources": {"requests": {"storage": volume.size}},
            },
        }
    ]
