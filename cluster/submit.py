"""Starts a study on a cluster, or goes on with it: one package, one job."""

from __future__ import annotations

import shlex
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from cluster.dependencies import pinned
from cluster.errors import UserError
from cluster.inputs import Inputs
from cluster.jobs import FOLDER, STUDY, Jobs
from cluster.package import ROOT, code_files, write_package
from cluster.places import folder_of


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The job that runs a study, the study's folder on the head, and the bytes of the package."""

    job: str
    study: str
    folder: str
    bytes: int


def submit_study(jobs: Jobs, inputs: Inputs, *, root: str, install: bool) -> Submitted:
    """Ships code and inputs and starts the job.

    Args:
        jobs: the cluster's jobs.
        inputs: the study.
        root: the folder on the head that holds all studies, or a URL.
        install: have pip install the dependencies on the cluster's nodes.

    Raises:
        UserError: the study runs already, or what it needs is too large.
    """
    folder = folder_of(inputs.name, root)
    if runs := [job.id for job in jobs.list() if job.folder == folder and not job.over]:
        raise UserError(f"{inputs.name} runs already, as job {runs[0]}; follow it with `logs`, or end it with `stop`")
    job = f"{inputs.name}-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as place:
        package = Path(place) / "package.zip"
        write_package({**code_files(), **inputs.packed()}, package)
        jobs.submit(
            package,
            f"python -m cluster.on_head study {shlex.quote(root)}",
            job=job,
            metadata={STUDY: inputs.name, FOLDER: folder},
            pip=pinned(ROOT) if install else None,
        )
        return Submitted(job=job, study=inputs.name, folder=folder, bytes=package.stat().st_size)
