"""What one trial takes of a machine, as a study file says it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Resources(BaseModel):
    """What one trial takes, and how many run at once (as many as fit, if not given).

    CPUs and GPUs may be parts of one (0.5: two trials share it) or whole numbers. A trial computes on as many threads
    as it has whole CPUs, but at least one. With ``processes_per_trial`` over one it trains data-parallel in so many
    processes on its node, which share its CPUs, and have a GPU each if it has any.
    ``accelerator_type`` (as Ray names it, such as A100) and ``custom`` resources, which nodes offer, say on what nodes
    trials run: ``{spot: 1}``. ``concurrent`` is also how many trials an autoscaler is asked to make room for.
    A trial whose worker dies is tried up to ``retries`` times again, from its last epoch; one that breaks by itself
    is not. ``stage_cache`` is a folder of results of stages (trainings, scans), which several studies may share, on
    several machines too; without it the study has one of its own. Of more than ``stage_cache_gb`` gigabytes the
    results go that were not used for longest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    cpus_per_trial: float = Field(default=1, gt=0)
    gpus_per_trial: float = Field(default=0, ge=0)
    processes_per_trial: int = Field(default=1, ge=1)
    accelerator_type: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+$")
    custom: dict[str, float] = {}
    concurrent: int | None = Field(default=None, ge=1)
    trial_minutes: float | None = Field(default=None, gt=0)
    retries: int = Field(default=2, ge=0)
    stage_cache: Path | None = None
    stage_cache_gb: float = Field(default=4.0, gt=0)

    @field_validator("cpus_per_trial", "gpus_per_trial")
    @classmethod
    def _part_or_whole(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("above one, Ray gives whole CPUs and GPUs only")
        return value

    @field_validator("custom")
    @classmethod
    def _some_of_each(cls, value: dict[str, float]) -> dict[str, float]:
        for name, amount in value.items():
            if name in {"CPU", "GPU", "memory"} or amount <= 0 or (amount > 1 and amount != int(amount)):
                raise ValueError(
                    f"{name}: {amount:g} is no custom resource; give a name of the cluster's own and a whole number or "
                    "a part of one, such as {spot: 1}"
                )
        return value

    @model_validator(mode="after")
    def _a_gpu_for_each_process(self) -> Resources:
        gpus, processes = self.gpus_per_trial, self.processes_per_trial
        if gpus and processes > 1 and gpus != processes:
            raise ValueError(
                f"each of {processes} processes trains on a GPU of its own; set gpus_per_trial to {processes} or 0"
            )
        return self
