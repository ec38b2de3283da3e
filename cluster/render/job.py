"""What the cluster runs and in which environment: the same for every format."""

from __future__ import annotations

from pathlib import PurePosixPath

from cluster.errors import UserError
from cluster.render.spec import Bucket, ClusterSpec, Folder

MOUNT = "/shared"


def mount(spec: ClusterSpec) -> str | None:
    """Where containers see the storage; None for a bucket."""
    match spec.storage:
        case Bucket():
            return None
        case Folder(path=path):
            return path
        case _:
            return MOUNT


def study_command(spec: ClusterSpec, root: str | None) -> str:
    """A script for ``sh -c`` that runs the study or, if its folder is there, goes on with it.

    It holds no quote and no ``$``: KubeRay and ``ray job submit`` hand it through three shells
    (``ray-operator/controllers/ray/common/job.go`` and Ray's ``list2cmdline``), each of which would read them.

    Args:
        spec: the cluster.
        root: the folder that holds the study file and the study folder; None for a bucket.
    """
    study, search = spec.study, "python -m search"
    if isinstance(spec.storage, Bucket):
        out = f"{spec.storage.url.rstrip('/')}/{study.name}"
        if study.file is None or not study.file.startswith("/"):
            raise UserError("study.file: with a bucket as storage, an absolute path that the image or a mount has")
        # resume refuses a folder that holds no study, and run one that does.
        return f"{search} resume {out} || {search} run {study.file} --out {out}"
    assert root is not None
    out = str(PurePosixPath(root) / study.name)
    new = f"demo --out {out}" if study.file is None else f"run {PurePosixPath(root) / study.file} --out {out}"
    return f"if [ -f {out}/study.yaml ]; then exec {search} resume {out}; else exec {search} {new}; fi"


def environment(spec: ClusterSpec) -> dict[str, str]:
    """What every process of the cluster has in its environment, without authentication and secrets."""
    # By default a worker of Ray yields to everything else on its node: measurements and trainings would be the last.
    return {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", **spec.env}


def auth_mode(spec: ClusterSpec) -> str:
    """The value of RAY_AUTH_MODE and of KubeRay's authOptions.mode."""
    return "token" if spec.auth.token else "disabled"
