"""What every recipe of a study starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.cache import StageCache
from search.stages.export import OPSET


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What every recipe of a study starts from."""

    baseline: Path  # checkpoint, also the teacher
    data: Path  # the study's data.yaml, with absolute paths
    seed: int = 0
    threads: int = 1
    processes: int = 1  # that train together, on their share of the threads and a GPU each
    opset: int = OPSET
    device: str = "cpu"
    cache: StageCache | None = None  # None keeps nothing
    data_digest: str = ""  # the same on all machines, if the data is; without it names, sizes and times tell
    train_settings: dict[str, Any] = field(default_factory=dict)
    may_train: bool = True  # False: what is trained comes from the cache, or not at all
