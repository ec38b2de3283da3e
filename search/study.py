"""The study file: what to compress, on what data, for which target, and how much to spend on it.

Everything is checked before any work starts, and each refusal names the key, what was wrong and what is allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from search.data import read_data
from search.engine.rungs import RungSettings
from search.errors import UserError
from search.measure.target_checks import check_runs
from search.record import Objective
from search.storage.urls import is_url, secret_in
from search.target import Target
from search.tasks.table import KINDS, check_space
from spaces.content import is_mapping
from spaces.parse import load_space
from spaces.recipe import STRIDE
from spaces.space import Space

SECRET = "secret"  # the type of a refusal that must not repeat what was given
SamplerName = Literal["auto", "tpe", "nsga2", "gp", "random"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def refuse_secret(url: str | None, advice: str) -> str | None:
    """``url``, if it holds no secret: a study file is read by everybody who reads the study."""
    if url is not None and is_url(url) and (secret := secret_in(url)):
        raise PydanticCustomError(SECRET, "{text}", {"text": f"a study file must not hold {secret}; {advice}"})
    return url


class Constraints(_Section):
    """Limits that a recipe must keep to join the front. ``max_accuracy_drop`` is a fraction: 0.01 is a point."""

    max_accuracy_drop: float | None = Field(default=None, ge=0, le=1)
    max_latency_ratio: float | None = Field(default=None, gt=0)
    max_latency_ms: float | None = Field(default=None, gt=0)
    max_size_mb: float | None = Field(default=None, gt=0)


class Stall(_Section):
    """The hypervolume stands still: it grew by less than ``growth`` (0.005 is half a percent) in ``trials`` trials."""

    growth: float = Field(default=0.005, gt=0, lt=1)
    trials: int = Field(default=20, ge=1)


class Budget(_Section):
    """When to stop handing out trials: at the first of these that is reached.

    Trials, epochs of training and the hypervolume are counted over the whole study, minutes anew for each run or
    resume. Trials that are under way when the search ends are finished, so ``epochs`` can be exceeded by theirs.
    """

    trials: int | None = Field(default=24, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    stall: Stall | None = None


class Engine(_Section):
    """How the next recipe is chosen.

    ``candidates`` is how many recipes are looked at for each one that is tried; 1 tries what the sampler says.
    ``sampled`` of them come from the sampler, each at the price of its own thinking time, the rest from the
    neighbourhood of the front and from anywhere. ``cost_power`` divides the expected gain by the epochs that it
    costs, to this power; 0 ignores the cost. ``leaves`` measures every leaf of a trained trunk, ``screen`` times a
    recipe before it is trained and leaves out what cannot join the front (without it, nothing is stopped at rungs
    either), ``starts`` tries hand-picked recipes first.
    """

    candidates: int = Field(default=64, ge=1, le=10_000)
    sampled: int = Field(default=1, ge=1, le=100)
    cost_power: float = Field(default=1.0, ge=0, le=2)
    leaves: bool = True
    screen: bool = True
    starts: bool = True


class Resources(_Section):
    """What one trial takes, and how many run at once (as many as fit, if not given).

    CPUs and GPUs may be parts of one (0.5: two trials share it) or whole numbers. A trial computes on as many threads
    as it has whole CPUs, but at least one.
    A trial whose worker dies is tried up to ``retries`` times again, from its last epoch; one that breaks by itself
    is not. ``stage_cache`` is a folder or a URL of results of stages (trainings, scans), which several studies may
    share, on several machines too; without it the study has one of its own. Of more than ``stage_cache_gb`` gigabytes
    the results go that were not used for longest; behind a URL nothing goes.
    """

    cpus_per_trial: float = Field(default=1, gt=0)
    gpus_per_trial: float = Field(default=0, ge=0)
    concurrent: int | None = Field(default=None, ge=1)
    trial_minutes: float | None = Field(default=None, gt=0)
    retries: int = Field(default=2, ge=0)
    stage_cache: str | None = None
    stage_cache_gb: float = Field(default=4.0, gt=0)

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


class FinalSettings(_Section):
    """How the front is measured again when the search has ended.

    What may be on it is timed with ``factor`` times the target's runs, at most ``records`` files; near ties up to
    ``rounds`` times.
    """

    factor: int = Field(default=4, ge=1)
    records: int = Field(default=24, ge=1)
    rounds: int = Field(default=3, ge=1)


class BaselineTraining(_Section):
    """How the baseline is trained when the model is an architecture (``.yaml``) and has no weights yet."""

    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=16, ge=1)
    lr: float = Field(default=2e-3, gt=0, le=1)


class StudyConfig(_Section):
    """A whole study; see the sections. Paths are kept as given, relative to the working directory.

    ``target`` is what the search is for; on the ``other_targets`` every complete record is measured too.
    ``sampler: auto`` is TPE. ``warm_start`` names folders of earlier studies, of
    the same data or of others, whose records tell the search where to look. ``rungs`` says after how many epochs a
    training is looked at, and stopped if it is behind the others; null trains all to their end. ``final: null`` leaves
    the front as the search measured it. ``optuna_storage`` is the URL, without a password, of a database for Optuna's
    view of the study; without it that is the file ``optuna.log`` in the study folder.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str
    data: Path
    image_size: int = Field(ge=STRIDE, le=4096, multiple_of=STRIDE)
    space: str = "detect-cpu"
    target: Target = Target()
    other_targets: tuple[Target, ...] = ()
    objectives: tuple[Objective, ...] = ("accuracy", "latency")
    constraints: Constraints = Constraints()
    budget: Budget = Budget()
    sampler: SamplerName = "auto"
    engine: Engine = Engine()
    rungs: RungSettings | None = RungSettings()
    final: FinalSettings | None = FinalSettings()
    warm_start: tuple[Path, ...] = ()
    seed: int = Field(default=0, ge=0)
    resources: Resources = Resources()
    baseline: BaselineTraining = BaselineTraining()
    train_settings: dict[str, bool | int | float | str] = {}
    optuna_storage: str | None = None

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
        raise UserError(f"{where}: {_first_refusal(error)}") from error


def check_files(config: StudyConfig) -> None:
    """Refuses a study whose space, data, model or targets cannot be used, before any work starts."""
    space = config.load_space()
    check_space(space, KINDS[read_data(config.data).task])
    check_runs(config.targets, space)
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


def _first_refusal(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(step) for step in first["loc"]) or "study"
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}; allowed are {', '.join(_allowed(first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == SECRET:
        return f"{key}: {first['msg']}"  # and not what it is
    return f"{key}: {first['msg']}; got {first['input']!r}"


def _allowed(path: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at ``path``."""
    section: type[BaseModel] = StudyConfig
    for step in path:
        annotation = section.model_fields[str(step)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        section = annotation
    return list(section.model_fields)
