"""Where a model will run, and so where it is measured: a runtime on a device, described by a small file.

The files are in ``search/targets``; a study names one of them, or a file of the user's own, and may change its keys.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from search.errors import UserError
from search.measure.pairs import Effort
from search.runtimes.session import Runtime
from search.runtimes.table import RUNTIMES, Device
from spaces.content import is_mapping

FILES = resources.files("search") / "targets"
DEFAULT = "onnxruntime-cpu"


FILE = r"[^/]\.ya?ml$"


def name_or_file(names: list[str]) -> JsonDict:
    """The JSON schema of a text that is one of these names, or the path of a YAML file."""
    return {"anyOf": [{"enum": [*names]}, {"pattern": FILE}]}


class Target(BaseModel):
    """A runtime on a device, and how to measure there.

    A name or a file's path stands for its content, and the keys of a mapping win over those of the target that its
    ``name`` names, unless it gives the ``runtime`` itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, use_attribute_docstrings=True)

    name: str = Field(default=DEFAULT, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Its name; a file's is that of the file, if it gives none."""
    about: str = ""
    """What it is, in a few words."""
    runtime: str = Field(default="onnxruntime", json_schema_extra={"enum": [*RUNTIMES]})
    """What loads and runs the file."""
    provider: str = "cpu"
    """A part of the runtime, such as ``cuda``."""
    device: Device = "cpu"
    """What the provider computes on."""
    precisions: tuple[str, ...] = ()
    """The kinds of ``quantize`` that it runs, all if empty; ``weight_only-4`` is one in so many bits."""
    environment: tuple[str, ...] = ()
    """pip's requirements for a Python environment of its own, if they do not go together with this project's."""
    threads: int = Field(default=1, ge=1, le=256)
    """CPU threads of the runtime."""
    batch: int = Field(default=1, ge=1, le=256)
    """Pictures in each run that is timed; for more than one the runtime has to read ONNX files."""
    cores: tuple[int, ...] | None = None
    """Cores that the measurement is pinned to; null is the last ones, as many as threads."""
    runs: int = Field(default=200, ge=10, le=100_000)
    """How often a file is timed beside the baseline, at most."""
    precision: float = Field(default=0.01, gt=0, lt=1)
    """Timing ends when half the width of the ratio's 95 % interval is this share of it."""
    seconds: float = Field(default=60.0, gt=0)
    """The longest time that is spent on timing a file."""
    opset: int = Field(default=17, ge=13, le=20)
    """The version of ONNX's operators that it reads; precisions whose storage needs a newer one raise it.

    13 is the first with a scale for each channel, 20 the last that PyTorch's exporter writes.
    """
    pause: Literal["auto", "always", "never"] = "auto"
    """Whether trainings on the same machine wait while it measures.

    auto is where the wall clock counts: with more than one thread, and on a GPU.
    """

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, content: Any) -> Any:
        """A name or a path stands for its file; the keys of a mapping win over those of the file that it names."""
        if isinstance(content, str):
            return read_target(content)
        if is_mapping(content) and isinstance(name := content.get("name"), str) and "runtime" not in content:
            base = read_target(name)
            return base | content | {"name": base["name"]}
        return content

    @model_validator(mode="after")
    def _known(self) -> Target:
        entry = RUNTIMES.get(self.runtime)
        if entry is None:
            raise ValueError(f"there is no runtime {self.runtime}; known are {', '.join(RUNTIMES)}")
        if self.provider not in entry.providers:
            raise ValueError(f"{self.runtime} has no provider {self.provider}; it has {', '.join(entry.providers)}")
        if (computes_on := entry.providers[self.provider].device) != self.device:
            raise ValueError(
                f"{self.runtime}'s provider {self.provider} computes on a {computes_on}, not on a {self.device}; "
                f"give the target device: {computes_on}, or another provider"
            )
        if self.batch > 1 and entry.format != "onnx":
            raise ValueError(
                f"batch {self.batch}: {self.runtime} takes one picture at a time, since a file in the format "
                f"{entry.format} is for the one that it is exported with; leave batch out, or choose a target that "
                f"reads ONNX files, such as {DEFAULT}"
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What ``_from_file`` accepts."""
        known = name_or_file(target_names())
        reference = handler(core)
        mapping = handler.resolve_ref_schema(reference)
        name = mapping["properties"]["name"]
        mapping |= {
            "if": {"required": ["runtime"]},
            "then": {"properties": {"name": {"pattern": name.pop("pattern")}}},
            "else": {"properties": {"name": known}},
        }
        return {"anyOf": [{"type": "string", **known}, reference]}

    @property
    def format(self) -> str:
        """The format of the files that it reads, a key of ``search.formats.FORMATS``."""
        return RUNTIMES[self.runtime].format

    @property
    def as_runtime(self) -> Runtime:
        """What opens a file on it."""
        return Runtime(name=self.runtime, provider=self.provider, threads=self.threads, environment=self.environment)

    @property
    def slot(self) -> str:
        """The Ray resource of the nodes that measure for it."""
        return f"bench:{self.name}"

    @property
    def by_wall_clock(self) -> bool:
        """Whether ratios are of the wall clock, which other work on the machine disturbs, and not of CPU time."""
        return self.threads > 1 or self.device == "gpu"

    @property
    def pauses_training(self) -> bool:
        """Whether trainings on the same machine wait while it measures."""
        return self.pause == "always" or (self.pause == "auto" and self.by_wall_clock)

    def effort(self, runs: int | None = None) -> Effort:
        """How long to time a file, at most ``runs`` times, the target's own if not given."""
        return Effort(runs=runs or self.runs, precision=self.precision, seconds=self.seconds)

    def runs_kind(self, precision: str, bits: int | None = None) -> bool:
        """Whether it runs files of a kind of ``quantize``, in so many bits where the kind has a number of them."""
        return not self.precisions or precision in self.precisions or f"{precision}-{bits}" in self.precisions


def target_names() -> list[str]:
    """The targets that have a file here."""
    return sorted(file.name.removesuffix(".yaml") for file in FILES.iterdir() if file.name.endswith(".yaml"))


def read_target(name: str) -> dict[str, Any]:
    """The content of a target's file.

    Args:
        name: of a file in ``search/targets``, or the path of another, which ends in ``.yaml``.

    Raises:
        ValueError: there is no such file, or it is no mapping.
    """
    own = Path(name)
    file = own if own.suffix in {".yaml", ".yml"} else FILES / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(f"there is no target {name}; known are {', '.join(target_names())}, or give a .yaml file")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not is_mapping(content):
        raise ValueError(f"the target file {file} is no mapping")
    return {"name": file.name.rpartition(".")[0]} | content


def load_target(name: str, **changes: Any) -> Target:
    """The target of a name or a file, with keys changed.

    Raises:
        UserError: there is none, or a key is refused.
    """
    try:
        return Target.model_validate(read_target(name) | changes)
    except ValueError as error:
        raise UserError(f"target {name}: {error}") from error
