"""Where trials of a study work: its folder, its data, its targets, and the baseline's files that they compare with."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from search.artifact import Gauge, MeasureLatency
from search.engine.rungs import RungSettings
from search.errors import FaultError, UserError
from search.faults import fault_of, sees, watched
from search.measure.parcel import pack
from search.runtimes.session import Runtime
from search.target import Target
from spaces.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where trials of a study work; the same for all of them. Paths are absolute.

    ``others`` are the study's further targets, ``baselines`` the uncompressed model by format, ``hosts`` the ids of the
    machines that measure by target. ``token`` tells the folder from another of the same path, on a machine that does
    not see it.
    """

    folder: Path
    inputs: Any  # search.pipeline.Inputs; not named here, so that the driver need not import torch
    target: Target
    baselines: dict[str, Path]
    baseline_recipe: Recipe
    others: tuple[Target, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    trial_minutes: float | None = None
    rungs: RungSettings | None = None
    token: str = ""

    @property
    def visible(self) -> bool:
        """Whether the study folder is seen from here."""
        return sees(self.folder, self.token)

    @property
    def written(self) -> list[Path]:
        """The folders that trials write to, the study's first."""
        cache = self.inputs.cache
        return [self.folder, *([cache.folder] if cache else []), Path(tempfile.gettempdir())]

    @contextmanager
    def scratch(self) -> Generator[Path]:
        """A folder for a while.

        Raises:
            FaultError: what broke inside is the fault of a folder; they are looked at while the scratch files still
                take their room.
        """
        watch = partial(watched, self.written, self.token)
        with watch(), tempfile.TemporaryDirectory(dir=self.folder / "cache") as name, watch():
            yield Path(name)

    def fault_of(self, error: BaseException) -> FaultError | None:
        """The fault of a folder that explains ``error``, if that is what it is."""
        return fault_of(error, self.written, self.token)

    def runtime(self, target: Target) -> Runtime:
        """What runs files of a target to see how accurate they are, on as many threads as a trial has."""
        return replace(target.as_runtime, threads=self.inputs.threads)

    def baseline(self, target: Target) -> Path:
        """The uncompressed model, as ``target`` reads it."""
        return self.baselines[target.format]

    def gauge(
        self, model: Any, image_size: int, measure_latency: MeasureLatency, target: Target | None = None
    ) -> Gauge:
        """What measures the files that are made of ``model``, on the study's main target if not given."""
        from search.pipeline import facts

        own = target or self.target
        return Gauge(
            measure_latency=measure_latency,
            target=own,
            data=self.inputs.data,
            threads=self.inputs.threads,
            baseline_size=pack(self.baseline(own)).size,
            **facts(model, image_size),
        )


def check_carried(target: Target, leaf: Recipe) -> None:
    """Refuses a leaf in a precision that ``target`` does not run."""
    kind, bits = leaf.quantize.kind, getattr(leaf.quantize, "bits", None)
    if not target.runs_kind(kind, bits):
        raise UserError(f"{target.name} runs {', '.join(target.precisions)}, not {kind}{f'-{bits}' if bits else ''}")
