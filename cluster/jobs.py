"""Jobs on a Ray cluster, through Ray's Job Submission client: the only file here that imports Ray.

What the client raises becomes one sentence that says what to do.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.address import ADDRESS_VARIABLES, Cluster, check, unauthorised
from cluster.errors import UserError

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
POLL = 0.5  # seconds between two questions for a job's state
STUDY, FOLDER = "yolo-front-study", "yolo-front-folder"  # keys of a job's metadata


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the cluster knows it. ``study`` and ``folder`` are None if it runs no study; times are seconds."""

    id: str
    status: str
    message: str
    study: str | None
    folder: str | None
    started: float | None
    ended: float | None

    @property
    def over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status in ENDED


class Jobs:
    """The jobs of one cluster.

    Raises:
        UserError: the cluster does not answer, wants another token or has another version; so does every method if it
            stops answering later, or knows no such job.
    """

    def __init__(self, cluster: Cluster) -> None:
        check(cluster)
        try:  # Ray's client needs it, and says so less clearly
            self._aiohttp: Any = import_module("aiohttp")
        except ImportError as error:
            raise UserError(
                "Ray's job client is not whole here: pip install -c constraints.txt -e '.[cluster]'"
            ) from error
        from ray.job_submission import JobSubmissionClient

        for module in ("dashboard_sdk", "job.sdk"):  # which set their own level
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
        self.cluster = cluster
        for name in ADDRESS_VARIABLES:  # Ray would let them win over the address that it is given
            os.environ.pop(name, None)
        with self._clear():
            self._client: Any = JobSubmissionClient(cluster.address, headers=dict(cluster.headers))

    def submit(
        self, package: Path, entrypoint: str, *, job: str, metadata: Mapping[str, str], pip: list[str] | None = None
    ) -> None:
        """Uploads ``package`` (a zip file) and starts ``entrypoint`` in it, as the job called ``job``."""
        environment: dict[str, Any] = {"working_dir": str(package)}
        if pip is not None:
            environment["pip"] = pip
        with self._clear():
            self._client.submit_job(
                entrypoint=entrypoint, submission_id=job, runtime_env=environment, metadata=dict(metadata)
            )

    def info(self, job: str) -> Job:
        """What is known of a job."""
        with self._clear(job):
            return _job(self._client.get_job_info(job))

    def list(self) -> list[Job]:
        """Every job that runs a study or did, the latest first."""
        with self._clear():
            jobs = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted((job for job in jobs if job.study), key=lambda job: job.started or 0.0, reverse=True)

    def logs(self, job: str) -> str:
        """All that a job has printed."""
        with self._clear(job):
            return self._client.get_job_logs(job)

    def follow(self, job: str, write: Callable[[str], object]) -> Job:
        """Gives what a job prints to ``write`` until it ends; takes up a connection that broke where it was."""
        import asyncio

        seen = 0
        while not (state := self.info(job)).over:
            with self._clear(job):
                seen = asyncio.run(self._tail(job, write, seen))
            time.sleep(POLL)
        write(self.logs(job)[seen:])
        return state

    async def _tail(self, job: str, write: Callable[[str], object], seen: int) -> int:
        """Follows the log, sent from its start, beyond its first ``seen`` characters; returns how many it had."""
        at = 0
        try:
            async for text in self._client.tail_job_logs(job):
                new = text[max(0, seen - at) :]
                at += len(text)
                if new:
                    write(new)
                    seen = at
        except (RuntimeError, self._aiohttp.ClientError):
            pass  # cut off: whether the cluster is still there, the next question shows
        return seen

    def stop(self, job: str, *, patience: float = 60.0) -> Job:
        """Ends a job and waits up to ``patience`` seconds until it has; one that has ended is left as it is."""
        if not self.info(job).over:
            with self._clear(job):
                self._client.stop_job(job)
        return self.wait(job, patience=patience)

    def wait(self, job: str, *, patience: float) -> Job:
        """Waits until a job has ended. Raises UserError if it has not after ``patience`` seconds."""
        until = time.monotonic() + patience
        while not (state := self.info(job)).over:
            if time.monotonic() > until:
                raise UserError(f"job {job} has not ended after {patience:.0f} s ({state.status}); try again")
            time.sleep(POLL)
        return state

    def delete(self, job: str) -> None:
        """Takes an ended job from the cluster's list."""
        with self._clear(job):
            self._client.delete_job(job)

    @contextmanager
    def _clear(self, job: str = "") -> Generator[None]:
        """Turns what Ray's client raises into the sentence for the user."""
        import requests
        from ray.exceptions import AuthenticationError

        address = self.cluster.address
        try:
            yield
        except AuthenticationError as error:
            raise unauthorised(self.cluster) from error
        except (ConnectionError, requests.exceptions.RequestException) as error:
            raise UserError(
                f"the cluster at {address} no longer answers; it was there a moment ago, try again"
            ) from error
        except RuntimeError as error:
            if job and "status code 404" in str(error):
                raise UserError(
                    f"there is no job {job} at {address}; `python -m cluster list` shows those that are"
                ) from error
            last = str(error).strip().rstrip(".").strip().splitlines()[-1]
            raise UserError(f"the cluster at {address} refused: {last}") from error


def _job(details: Any) -> Job:
    metadata: dict[str, str] = details.metadata or {}
    seconds = [None if time is None else time / 1000 for time in (details.start_time, details.end_time)]
    return Job(
        id=details.submission_id or details.job_id,
        status=str(getattr(details.status, "value", details.status)),
        message=details.message or "",
        study=metadata.get(STUDY),
        folder=metadata.get(FOLDER),
        started=seconds[0],
        ended=seconds[1],
    )
