"""What a running study says of itself: ``live.json`` in its folder, written once a second, for whoever looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

FILE = "live.json"
STALE = 15.0  # seconds without a heartbeat after which a study does not run any more: it was killed, or is a copy

Step = Literal["starting", "shape", "screen", "train", "measure", "elsewhere"]
OnStep = Callable[[Step, int, int], None]  # (the step that begins or goes on, epochs done, epochs in all)


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What a worker does in its trial: the step, in a training the epochs done and in all, and on which node."""

    step: Step
    done: int = 0
    total: int = 0
    node: str = ""


Activities = dict[str, tuple[Activity, float]]  # by trunk: what its worker does, and for how many seconds


class Running(BaseModel):
    """A trial that is under way; ``since`` is when its step began, in seconds since 1970."""

    model_config = ConfigDict(frozen=True)

    trunk: str
    text: str
    step: Step = "starting"
    done: int = 0
    total: int = 0
    node: str = ""
    since: float


class Snapshot(BaseModel):
    """A study at one moment. Times are seconds since 1970 by the driver's clock, ``seconds_left`` an estimate.

    ``deadline`` is when the search hands out no more trials, if its budget has minutes. ``log`` is its last lines,
    oldest first. ``reason`` says why it failed.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["running", "ended", "stopped", "failed"] = "running"
    reason: str = ""
    pid: int
    host: str
    started: float
    heartbeat: float
    stage: str = ""
    stage_since: float
    trials: int = 0
    trials_limit: int | None = None
    deadline: float | None = None
    seconds_left: float | None = None
    running: tuple[Running, ...] = ()
    log: tuple[str, ...] = ()

    def alive(self, now: float) -> bool:
        """Whether the study runs, as far as its heartbeat tells at ``now``."""
        return self.state == "running" and now - self.heartbeat <= STALE


def read_snapshot(folder: Path) -> Snapshot | None:
    """What the study in ``folder`` said last; None if it never did, as studies of older versions."""
    try:
        return Snapshot.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any: ``1:02:03``."""
    whole = max(0, int(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
