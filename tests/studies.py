"""A small study of hand-made records, for tests of what is said about a study."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from search.store import Store
from search.study import StudyConfig
from spaces.recipe import ChannelPrune, Finetune, Int8Static, Recipe
from tests.fakes import make_baseline, make_record

HOST = {"id": "abc123", "cpu": "a processor", "usable_cores": 2, "packages": {"onnxruntime": "1.0"}}


def study(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {"name": "cats", "model": "yolov8n.pt", "data": "data.yaml", "image_size": 64, **changes}
    )


def pruned(ratio: float) -> Recipe:
    return Recipe(image_size=64, prune=ChannelPrune(ratio=ratio), finetune=Finetune(epochs=3), quantize=Int8Static())


RECORDS = {
    "small": make_record(pruned(0.6), accuracy=0.30, latency=0.2, size=0.10),
    "good": make_record(pruned(0.3), accuracy=0.595, latency=0.4, size=0.20),
    "better": make_record(pruned(0.1), accuracy=0.61, latency=0.7, size=0.50),
    "dominated": make_record(pruned(0.4), accuracy=0.59, latency=0.5, size=0.05),
    "failed": make_record(pruned(0.7), accuracy=0.9, latency=0.1, state="failed", reason="OOM | at\nepoch 3"),
    "screened": make_record(pruned(0.2), accuracy=None, latency=0.1, state="screened", reason="too slow"),
    "stopped": make_record(pruned(0.8), accuracy=0.9, latency=0.1, state="stopped", reason="hopeless"),
    "nan": make_record(pruned(0.5), accuracy=math.nan, latency=0.1),
}


def make_store(folder: Path) -> Store:
    """The baseline and the records, in a study folder."""
    store = Store(folder)
    store.append([make_baseline(), *RECORDS.values()])
    (folder / "host.json").write_text(json.dumps(HOST))
    return store


def ids(*names: str) -> list[str]:
    return [RECORDS[name].id for name in names]


def tables(text: str) -> list[list[dict[str, str]]]:
    """Every table of a Markdown text, as rows of cells by their column; a row that is torn or too long fails."""
    blocks: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            blocks[-1].append([cell.strip() for cell in line.split("|")[1:-1]])
        elif blocks[-1]:
            blocks.append([])
    return [
        [dict(zip(header, row, strict=True)) for row in rows]
        for header, _, *rows in (block for block in blocks if block)
    ]
