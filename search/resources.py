"""What one trial takes of a machine, as a study file says it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict

from search.refusal import refuse_secret

# What a validator below checks and Pydantic cannot say in a schema by itself.
_PART_OR_WHOLE: JsonDict = {"anyOf": [{"maximum": 1}, {"multipleOf": 1}]}


class Resources(BaseModel):
    """What one trial takes, on what nodes, and how many run at once (as many as fit, if not given).

    CPUs and GPUs may be parts of one (0.5: two trials share it) or whole numbers. A trial computes on as many threads
    as it has whole CPUs, but at least one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, use_attribute_docstrings=True)

    cpus_per_trial: float = Field(default=1, gt=0, json_schema_extra=_PART_OR_WHOLE)
    """CPUs of a trial."""
    gpus_per_trial: float = Field(default=0, ge=0, json_schema_extra=_PART_OR_WHOLE)
    """GPUs of a trial."""
    device: Literal["auto", "cpu"] = "auto"
    """auto is the GPU that a trial holds; cpu is the CPU, also where PyTorch cannot use what is called a GPU."""
    processes_per_trial: int = Field(default=1, ge=1)
    """Processes of a trial that train together on its node: they share its CPUs, and have a GPU each if it has any."""
    accelerator_type: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+$")
    """Trials run on nodes with this kind of GPU, by the name that Ray has for it, such as A100."""
    custom: dict[str, float] = {}
    """Resources that nodes offer under names of your own, such as {spot: 1}: trials run on these nodes."""
    concurrent: int | None = Field(default=None, ge=1)
    """Trials at once, and how many an autoscaler is asked to make room for; null is as many as fit."""
    trial_minutes: float | None = Field(default=None, gt=0)
    """A trial that takes longer has failed."""
    retries: int = Field(default=2, ge=0)
    """How often a trial whose worker died is tried again, from its last epoch; one that breaks by itself is not."""
    stage_cache: str | None = None
    """A folder or URL of trainings and scans for several studies and machines; null is one of the study's own."""
    stage_cache_gb: float = Field(default=4.0, gt=0)
    """Gigabytes of it; what is over them goes, first what was not used for longest."""

    @field_validator("stage_cache")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        return refuse_secret(value, "give credentials by the environment")

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

    @property
    def torch_device(self) -> str:
        """What trials compute on, as Ultralytics names it: the first GPU that they hold, or the CPU."""
        return "0" if self.gpus_per_trial and self.device == "auto" else "cpu"
