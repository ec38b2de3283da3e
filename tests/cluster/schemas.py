"""The parts of foreign schemas that our documents use, written by hand and closed: an unknown key fails.

Kubernetes: the OpenAPI schema of ``rayclusters.ray.io`` and ``rayjobs.ray.io``, version v1, in
https://github.com/ray-project/kuberay, ``helm-chart/kuberay-operator/crds/ray.io_rayclusters.yaml`` and
``ray.io_rayjobs.yaml``, and what the operator checks beyond it in ``ray-operator/controllers/ray/utils/validation.go``
(names are DNS-1035 labels, a cluster's of at most 53 characters and a job's of at most 47). Names, labels, quantities:
https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/.

Compose: https://github.com/compose-spec/compose-spec/blob/main/schema/compose-spec.json.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def closed(required: Schema, optional: Schema | None = None) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def array(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def mapping(keys: str, values: Schema) -> Schema:
    return {"type": "object", "patternProperties": {keys: values}, "additionalProperties": False}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
BOOL: Schema = {"type": "boolean"}

DNS_1123 = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]\Z"
OBJECT_NAME: Schema = {"type": "string", "pattern": DNS_1123, "maxLength": 253}
LABELS = mapping(
    LABEL_KEY, {"type": "string", "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z", "maxLength": 63}
)
# The CRD's own pattern of a quantity, here for text only.
QUANTITY: Schema = {"type": "string", "pattern": r"^([0-9]+)(\.[0-9]+)?([KMGTPE]i|[numkMGTPE])?\Z"}
RESOURCES = closed({kind: mapping(r"^(cpu|memory|nvidia\.com/gpu)\Z", QUANTITY) for kind in ("limits", "requests")})
ENV_VAR: Schema = {
    "oneOf": [
        closed({"name": TEXT, "value": TEXT}),
        closed({"name": TEXT, "valueFrom": closed({"secretKeyRef": closed({"name": OBJECT_NAME, "key": TEXT})})}),
    ]
}
POD_TERM = closed({"labelSelector": closed({"matchLabels": LABELS}), "topologyKey": TEXT})
ANTI_AFFINITY = closed(
    {},
    {
        "requiredDuringSchedulingIgnoredDuringExecution": array(POD_TERM),
        "preferredDuringSchedulingIgnoredDuringExecution": array(
            closed({"weight": COUNT, "podAffinityTerm": POD_TERM})
        ),
    },
)
TOLERATION = closed(
    {"key": {"type": "string", "pattern": LABEL_KEY}, "operator": {"enum": ["Equal", "Exists"]}},
    {"value": TEXT, "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]}},
)
VOLUME: Schema = {
    "oneOf": [
        closed({"name": OBJECT_NAME, "emptyDir": closed({"medium": {"const": "Memory"}})}),
        closed({"name": OBJECT_NAME, "hostPath": closed({"path": TEXT, "type": {"const": "Directory"}})}),
        closed({"name": OBJECT_NAME, "nfs": closed({"server": TEXT, "path": TEXT})}),
        closed({"name": OBJECT_NAME, "persistentVolumeClaim": closed({"claimName": OBJECT_NAME})}),
    ]
}
CONTAINER = closed(
    {
        "name": OBJECT_NAME,
        "image": TEXT,
        "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        "env": array(ENV_VAR),
        "resources": RESOURCES,
        "securityContext": closed({"allowPrivilegeEscalation": BOOL, "capabilities": closed({"drop": array(TEXT)})}),
        "volumeMounts": array(closed({"name": OBJECT_NAME, "mountPath": TEXT})),
    },
    {"ports": array(closed({"containerPort": COUNT, "name": OBJECT_NAME}))},
)
POD = closed(
    {"metadata": closed({"labels": LABELS})}
    | {
        "spec": closed(
            {
                "securityContext": closed({"runAsNonRoot": BOOL, "runAsUser": COUNT, "fsGroup": COUNT}),
                "containers": array(CONTAINER, minItems=1),
                "volumes": array(VOLUME),
            },
            {
                "serviceAccountName": OBJECT_NAME,
                "imagePullSecrets": array(closed({"name": OBJECT_NAME})),
                "nodeSelector": LABELS,
                "tolerations": array(TOLERATION),
                "affinity": closed({"podAntiAffinity": ANTI_AFFINITY}),
            },
        )
    }
)
START_PARAMS: Schema = {"type": "object", "additionalProperties": TEXT}  # map[string]string: numbers are refused
WORKER_GROUP = closed(
    {
        "groupName": {"type": "string", "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?\Z", "maxLength": 63},
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": START_PARAMS,
        "template": POD,
    }
)
CLUSTER_SPEC = closed(
    {
        "rayVersion": {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+\Z"},
        "authOptions": closed({"mode": {"enum": ["disabled", "token"]}}),
        "enableInTreeAutoscaling": BOOL,
        "headGroupSpec": closed({"rayStartParams": START_PARAMS, "template": POD}),
        "workerGroupSpecs": array(WORKER_GROUP),
    },
    {"autoscalerOptions": closed({"idleTimeoutSeconds": COUNT, "env": array(ENV_VAR)})},
)


def _named(longest: int) -> Schema:
    name: Schema = {"type": "string", "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?\Z", "maxLength": longest}
    return closed({"name": name, "labels": LABELS}, {"namespace": OBJECT_NAME})


RAYCLUSTER = closed(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayCluster"},
        "metadata": _named(53),
        "spec": CLUSTER_SPEC,
    }
)
RAYJOB = closed(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": _named(47),
        "spec": closed(
            {
                "entrypoint": TEXT,
                "runtimeEnvYAML": TEXT,
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
                "backoffLimit": COUNT,
                "shutdownAfterJobFinishes": BOOL,
                "ttlSecondsAfterFinished": COUNT,
                "rayClusterSpec": CLUSTER_SPEC,
            }
        ),
    }
)
CLAIM = closed(
    {
        "apiVersion": {"const": "v1"},
        "kind": {"const": "PersistentVolumeClaim"},
        "metadata": _named(63),
        "spec": closed(
            {
                "accessModes": array({"enum": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]}),
                "resources": closed({"requests": closed({"storage": QUANTITY})}),
            },
            {"storageClassName": OBJECT_NAME},
        ),
    }
)
BY_KIND = {"RayCluster": RAYCLUSTER, "RayJob": RAYJOB, "PersistentVolumeClaim": CLAIM}

SERVICE_NAME = r"^[a-zA-Z0-9._-]+\Z"
BYTES: Schema = {"type": "string", "pattern": r"^[0-9]+[kmg]\Z"}
DEVICE = closed({"driver": TEXT, "count": COUNT, "capabilities": array(TEXT)})
SERVICE = closed(
    {
        "image": TEXT,
        "environment": {"type": "object", "additionalProperties": TEXT},
        "restart": {"type": "string", "pattern": r"^(no|always|unless-stopped|on-failure(:[0-9]+)?)\Z"},
        "command": array(TEXT),
    },
    {
        "build": closed({"context": TEXT, "dockerfile": TEXT}),
        "secrets": array(TEXT),
        "volumes": array(closed({"type": {"enum": ["bind", "volume"]}, "source": TEXT, "target": TEXT})),
        "shm_size": BYTES,
        "deploy": closed(
            {
                "replicas": COUNT,
                "resources": closed(
                    {"limits": closed({"cpus": TEXT, "memory": BYTES})},
                    {"reservations": closed({"devices": array(DEVICE)})},
                ),
            }
        ),
        "depends_on": mapping(
            SERVICE_NAME,
            closed({"condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}}),
        ),
        "ports": array(TEXT),
        "healthcheck": closed({"test": array(TEXT), "interval": TEXT, "timeout": TEXT, "retries": COUNT}),
    },
)
COMPOSE = closed(
    {"name": {"type": "string", "pattern": r"^[a-z0-9][a-z0-9_-]*\Z"}, "services": mapping(SERVICE_NAME, SERVICE)},
    {
        "volumes": mapping(
            SERVICE_NAME, closed({}, {"driver": TEXT, "driver_opts": {"type": "object", "additionalProperties": TEXT}})
        ),
        "secrets": mapping(SERVICE_NAME, closed({"file": TEXT})),
    },
)
