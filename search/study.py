"""The study file: what to compress, on what data, for which target, and how much to spend on it.

Everything is checked before any work starts, and each refusal names the key, what was wrong and what is allowed.
The text below a key says what it is, here, in the JSON schema and in the reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.config import JsonDict

from search.data import read_data
from search.engine.rungs import RungSettings
from search.errors import UserError
from search.measure.target_checks import check_runs
from search.placement import check_teachers
from search.record import Objective
from search.refusal import first_refusal, refuse_secret
from search.resources import Resources
from search.target import Target, name_or_file
from search.tasks.table import KINDS, check_space
from spaces.content import is_mapping
from spaces.parse import load_space, preset_names
from spaces.recipe import STRIDE
from spaces.space import Space

SamplerName = Literal["auto", "tpe", "nsga2", "gp", "random"]

# What validators below check and Pydantic cannot say in a schema by itself.
_OBJECTIVES: JsonDict = {"uniqueItems": True, "minItems": 2, "contains": {"const": "accuracy"}}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, use_attribute_docstrings=True)


class Constraints(_Section):
    """Limits that a recipe must keep to join the front; null is none."""

    max_accuracy_drop: float | None = Field(default=None, ge=0, le=1)
    """Accuracy that may be lost against the baseline, as a fraction: 0.01 is a point."""
    max_latency_ratio: float | None = Field(default=None, gt=0)
    """Latency over the baseline's: 0.5 is half of it."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """The median latency of a run, in milliseconds; of a run with all pictures of the target's ``batch``."""
    max_size_mb: float | None = Field(default=None, gt=0)
    """The size of the file, in 10^6 bytes."""


class Stall(_Section):
    """The hypervolume stands still: it grew by less than ``growth`` in ``trials`` trials."""

    growth: float = Field(default=0.005, gt=0, lt=1)
    """A share of the hypervolume: 0.005 is half a percent."""
    trials: int = Field(default=20, ge=1)
    """The latest trials that are looked at."""


class Budget(_Section):
    """When to stop handing out trials: at the first of these that is reached.

    Trials, epochs of training and the hypervolume are counted over the whole study, minutes anew for each run or
    resume. Trials that are under way when the search ends are finished, so ``epochs`` can be exceeded by theirs.
    """

    trials: int | None = Field(default=24, ge=1)
    """Trials; null is no limit."""
    epochs: int | None = Field(default=None, ge=1)
    """Epochs of training, over all trials."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall-clock time of each run or resume."""
    stall: Stall | None = None
    """Stop when the hypervolume stands still; null does not look at it."""


class Engine(_Section):
    """How the next recipe is chosen among candidates."""

    candidates: int = Field(default=64, ge=1, le=10_000)
    """Recipes that are looked at for each one that is tried; 1 tries what the sampler says."""
    sampled: int = Field(default=1, ge=1, le=100)
    """Candidates from the sampler, each at the price of its thinking time; others are near the front, or anywhere."""
    cost_power: float = Field(default=1.0, ge=0, le=2)
    """The expected gain is divided by the epochs that it costs, to this power; 0 ignores the cost."""
    leaves: bool = True
    """Measure every leaf (precision) of a trained trunk."""
    screen: bool = True
    """Time a recipe before it is trained, and leave out what cannot join the front; if not, no rung stops either."""
    starts: bool = True
    """Try hand-picked recipes first."""


class FinalSettings(_Section):
    """How the front of each target, and what may be on it, is measured again when the search has ended."""

    factor: int = Field(default=2, ge=1)
    """Times the target's runs, each time."""
    records: int = Field(default=24, ge=1)
    """Files, at most, for each target."""
    rounds: int = Field(default=3, ge=1)
    """Times that a file is timed, at most: twice undisturbed, near ties and what others disturb more often."""


class BaselineTraining(_Section):
    """How the baseline is trained when the model is an architecture (``.yaml``) and has no weights yet."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the training split."""
    batch: int = Field(default=16, ge=1)
    """Images in one step."""
    lr: float = Field(default=2e-3, gt=0, le=1)
    """The peak learning rate."""


class StudyConfig(_Section):
    """A whole study. Paths are kept as given, relative to the working directory."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The study's name, and that of its folder below ``results/``."""
    model: str = Field(json_schema_extra={"pattern": r"[^/]\.(pt|ya?ml)$"})
    """A ``.pt`` checkpoint, or a ``.yaml`` architecture to train first."""
    data: Path
    """Ultralytics' ``data.yaml``; for classification a folder with ``train/<class>/`` and ``val/<class>/``."""
    image_size: int = Field(ge=STRIDE, le=4096, multiple_of=STRIDE)
    """The side of the model's input, in pixels."""
    space: str = Field(default="detect-cpu", json_schema_extra=name_or_file(preset_names()))
    """What varies: the name of a preset, or a ``.yaml`` file of your own."""
    target: Target = Target()
    """What the search is for: a name that ``python -m search targets`` lists, a ``.yaml`` file, or keys that differ."""
    other_targets: tuple[Target, ...] = ()
    """On these every complete record is measured too."""
    objectives: tuple[Objective, ...] = Field(default=("accuracy", "latency"), json_schema_extra=_OBJECTIVES)
    """What the front trades: accuracy, and latency, size or both."""
    constraints: Constraints = Constraints()
    """Limits that a recipe must keep to join the front."""
    budget: Budget = Budget()
    """When to stop handing out trials."""
    sampler: SamplerName = "auto"
    """Who proposes candidates; auto is TPE."""
    engine: Engine = Engine()
    """How the next recipe is chosen."""
    rungs: RungSettings | None = RungSettings()
    """After how many epochs a training is looked at, and stopped if it is behind the others; null stops none."""
    final: FinalSettings | None = FinalSettings()
    """How the front of each target is measured again in the end; null leaves it as the search measured it."""
    warm_start: tuple[Path, ...] = ()
    """Folders of earlier studies, of the same data or of others, whose records tell the search where to look."""
    seed: int = Field(default=0, ge=0)
    """Of the data's order, the training and the search."""
    resources: Resources = Resources()
    """What one trial takes, and how many run at once."""
    baseline: BaselineTraining = BaselineTraining()
    """How an architecture is trained first."""
    train_settings: dict[str, bool | int | float | str] = {}
    """Settings of Ultralytics' trainer for every training, such as ``mosaic: 0.0``."""
    optuna_storage: str | None = None
    """URL, without a password, of a database for Optuna's view of the study; null is ``optuna.log`` in its folder."""

    @field_validator("optuna_storage")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        return refuse_secret(value, "put the whole URL into the environment variable OPTUNA_STORAGE")

    @field_validator("model")
    @classmethod
    def _model_suffix(cls, value: str) -> str:
        if Path(value).suffix not in {".pt", ".yaml", ".yml"}:
            raise ValueError("a model is a .pt checkpoint, or a .yaml architecture to train first")
        return value

    @field_validator("objectives")
    @classmethod
    def _two_or_more(cls, value: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if len(set(value)) != len(value) or "accuracy" not in value or len(value) < 2:
            raise ValueError("objectives are accuracy and at least one of latency and size, each once")
        return value

    @model_validator(mode="after")
    def _different_targets(self) -> StudyConfig:
        names = [target.name for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError(f"targets need names of their own, and these are {', '.join(names)}")
        return self

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets, the main one first."""
        return (self.target, *self.other_targets)

    def load_space(self) -> Space:
        """The space that this study searches."""
        return load_space(self.space, image_size=self.image_size)

    def to_yaml(self) -> str:
        """YAML text that ``load_study`` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_study(path: Path, overrides: list[str] | None = None) -> StudyConfig:
    """Reads and checks a study file, with ``key=value`` overrides applied (``budget.trials=8``).

    Raises:
        UserError: something in it is refused, or a file that it names is missing.
    """
    if not path.is_file():
        raise UserError(f"there is no study file {path}; write one as the README shows, or run the demo")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not is_mapping(content):
        raise UserError(f"{path} is empty or no mapping; a study needs at least name, model, data and image_size")
    for override in overrides or []:
        _apply(content, override)
    config = parse_study(content, where=str(path))
    check_files(config)
    return config


def parse_study(content: dict[str, Any], *, where: str) -> StudyConfig:
    """A study from YAML content. Raises UserError with the first refusal: key, what was wrong, what is allowed."""
    try:
        return StudyConfig.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {first_refusal(error, StudyConfig)}") from error


def check_files(config: StudyConfig) -> None:
    """Refuses a study whose space, data, model or targets cannot be used, before any work starts."""
    space = config.load_space()
    check_space(space, KINDS[read_data(config.data).task])
    check_runs(config.targets, space)
    check_teachers(space, config.resources)
    model = Path(config.model)
    # A bare name such as yolov8n.pt is Ultralytics' to fetch; anything with a folder must be there.
    if not model.is_file() and len(model.parts) > 1:
        raise UserError(f"model: there is no file {model}")


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected key=value, such as --set budget.trials=8")
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not is_mapping(section):
            raise UserError(f"--set {override}: {parent} is a value, it has no keys of its own")
    try:
        section[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML: {' '.join(str(error).split())}") from error
