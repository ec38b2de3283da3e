"""The cluster spec: one small YAML file from which every format is rendered. All of it has defaults.

Secrets are references only: the name of a Kubernetes secret, of an environment variable or of a file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cluster.render.secret import find_secret, names_a_secret
from cluster.render.values import (
    AbsolutePath,
    Address,
    Count,
    DataKey,
    EnvName,
    EnvText,
    GroupName,
    Image,
    LabelKey,
    LabelValue,
    Memory,
    Name,
    Namespace,
    ObjectName,
    Path,
    Server,
    StudyName,
    Target,
    Url,
    Word,
)

_OURS = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED")


class _Section(BaseModel):
    # An error must not repeat what may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Toleration(_Section):
    """A taint of Kubernetes nodes that pods of this group put up with."""

    key: LabelKey
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Machine(_Section):
    """What one node has. ``memory`` is in Mi, Gi or Ti; ``instance`` names the type of machine that a cloud starts."""

    cpus: int = Field(default=4, ge=1, le=1024)
    gpus: int = Field(default=0, ge=0, le=64)
    memory: Memory = "8Gi"
    instance: Word | None = None
    node_selector: dict[LabelKey, LabelValue] = {}
    tolerations: tuple[Toleration, ...] = ()


class Head(Machine):
    """The node that coordinates; with ``trials`` it runs some too, which a small cluster may want."""

    cpus: int = Field(default=2, ge=1, le=1024)
    memory: Memory = "4Gi"
    trials: bool = False


class _Group(Machine):
    name: GroupName
    hosts: tuple[Address, ...] = ()
    partition: Word | None = None


class Workers(_Group):
    """Equal nodes that run trials: between ``min`` and ``max`` of them where the cluster scales, else ``max``.

    ``max`` is ``min`` if it is not given. ``spot`` nodes are cheap and may vanish; their trials are tried again.
    ``hosts`` are the machines of an on-premise cluster, ``partition`` is Slurm's.
    """

    name: GroupName = "workers"
    min: Count = 1
    max: Count | None = None
    spot: bool = False

    @property
    def most(self) -> int:
        """The largest number of nodes."""
        return self.min if self.max is None else self.max

    @model_validator(mode="after")
    def _bounds(self) -> Workers:
        if self.most < max(1, self.min):
            raise ValueError("max is at least min and at least 1")
        return self


class Bench(_Group):
    """Nodes on which latency is measured and nothing is trained: one unit of the resource ``bench:<target>`` on each.

    ``alone`` asks Kubernetes and Slurm for machines that run nothing else.
    """

    name: GroupName = "bench"
    target: Target = "onnxruntime-cpu"
    cpus: int = Field(default=2, ge=1, le=1024)
    memory: Memory = "4Gi"
    count: int = Field(default=1, ge=1, le=1000)
    alone: bool = False


class Volume(_Section):
    """A volume that is made for the cluster, or on Kubernetes the existing ``claim``; mounted at /shared."""

    kind: Literal["volume"] = "volume"
    claim: ObjectName | None = None
    size: Memory = "20Gi"
    storage_class: ObjectName | None = None
    access: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"


class Folder(_Section):
    """A folder that every machine sees under the same path."""

    kind: Literal["folder"] = "folder"
    path: AbsolutePath


class Nfs(_Section):
    """An export of an NFS server, mounted at /shared."""

    kind: Literal["nfs"] = "nfs"
    server: Server
    path: AbsolutePath


class Bucket(_Section):
    """A bucket of S3 or GCS, or a folder in it."""

    kind: Literal["bucket"] = "bucket"
    url: Url


Storage = Annotated[Volume | Folder | Nfs | Bucket, Field(discriminator="kind")]


class Study(_Section):
    """What the cluster runs: ``file`` is the study file, in the storage or absolute; without it, the demonstration.

    The study folder is ``name``, in the storage. If it is there, the study goes on.
    """

    name: StudyName = "demo"
    file: Path | None = None


class Auth(_Section):
    """Token authentication of Ray. ``token_file`` holds the token, where one is needed beforehand."""

    token: bool = True
    token_file: Path = "~/.ray/auth_token"  # where `ray get-auth-token --generate` puts it


class Secret(_Section):
    """An environment variable that holds a secret: from a ``key`` of a Kubernetes ``secret``, or from a ``file``."""

    env: EnvName
    secret: ObjectName | None = None
    key: DataKey = "value"
    file: Path | None = None


class Kubernetes(_Section):
    """``spot`` says how this cloud marks its spot nodes.

    A RayJob is tried again ``retries`` times, each going on with the study, and its cluster kept ``keep_minutes``.
    """

    namespace: Namespace | None = None
    service_account: ObjectName | None = None
    image_pull_secret: ObjectName | None = None
    spot: Literal["gke", "eks", "aks", "karpenter"] | None = None
    retries: int = Field(default=2, ge=0, le=100)
    keep_minutes: int = Field(default=60, ge=0, le=10_000)


class Launcher(_Section):
    """Of ``ray up``. ``zone`` is AWS's or GCP's, ``project`` GCP's, ``head_host`` the first on-premise machine.

    ``machine_image`` has Docker, and NVIDIA's driver for GPUs; by default it is Ray's choice on AWS and Google's deep
    learning image on GCP.
    """

    provider: Literal["aws", "gcp", "on-premise"] = "aws"
    region: Word | None = None
    zone: Word | None = None
    project: Word | None = None
    head_host: Address | None = None
    machine_image: Word | None = None
    ssh_user: Word = "ubuntu"
    ssh_private_key: Path | None = None


class Slurm(_Section):
    """Of ``sbatch``. ``activate`` is the script that a shell sources to have this project's Python."""

    time: str = Field(default="08:00:00", pattern=r"^(?:[0-9]+-)?[0-9]{1,2}:[0-9]{2}:[0-9]{2}$")
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    modules: tuple[Word, ...] = ()
    activate: Path | None = ".venv/bin/activate"


class ClusterSpec(_Section):
    """A whole cluster; see the sections. ``storage: null`` is what each format has by itself."""

    name: Name = "yolo-front"
    image: Image = "yolo-front:latest"
    ray_version: str = Field(default="2.60.0", pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    head: Head = Head()
    workers: tuple[Workers, ...] = Field(default=(Workers(),), min_length=1)
    bench: tuple[Bench, ...] = (Bench(),)
    idle_minutes: float = Field(default=5, gt=0, le=10_000)
    storage: Storage | None = None
    study: Study = Study()
    auth: Auth = Auth()
    env: dict[EnvName, EnvText] = {}
    secrets: tuple[Secret, ...] = ()
    kubernetes: Kubernetes = Kubernetes()
    launcher: Launcher = Launcher()
    slurm: Slurm = Slurm()

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, content: object) -> object:
        found = find_secret(content)
        if found is not None:
            raise ValueError(f"{found} looks like a secret; name where it is instead, under secrets")
        return content

    @field_validator("secrets")
    @classmethod
    def _free(cls, secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
        for secret in secrets:
            _check_free(secret.env)
        return secrets

    @field_validator("env")
    @classmethod
    def _plain(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            _check_free(name)
            if names_a_secret(name):
                raise ValueError(f"{name} is a secret by its name; name where it is instead, under secrets")
        return env

    @model_validator(mode="after")
    def _distinct(self) -> ClusterSpec:
        names = ["head", "headgroup", "study", *(group.name for group in (*self.workers, *self.bench))]
        variables = [*self.env, *(secret.env for secret in self.secrets)]
        for kind, values in (("group", names), ("environment variable", variables)):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"the {kind} {twice[0]} is there twice, or its name is taken")
        if isinstance(self.storage, Bucket) and self.study.file is None:
            raise ValueError("study.file is missing: the demonstration cannot run in a bucket")
        return self


def _check_free(name: str) -> None:
    if name in _OURS:
        raise ValueError(f"{name} is set here already; see auth and the privacy part of the README")
