"""A driver without a search: holds a study and appends records, artifact first, as a study does.

Of a study that is not behind a URL, Optuna's storage is kept in step too.

python -m tests.writer URL-or-DIR WORK NAME COUNT PAUSE
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

from search.artifact import Artifact
from search.record import Record
from search.storage.hold import held
from search.storage.mirror import bring
from search.storage.urls import is_url
from search.store import Store, write_atomically
from search.study import StudyConfig, load_space
from spaces.recipe import ChannelPrune, Recipe
from tests.fakes import make_baseline, make_record
from tests.studies import study

ROOT = Path(__file__).resolve().parents[1]
SPACE = "image_size: 64\nprune:\n  - {kind: none}\n  - {kind: channels, ratio: {low: 0.05, high: 0.95}}\n"


def recipe_of(number: int) -> Recipe:
    return Recipe(image_size=64, prune=ChannelPrune(ratio=round(0.05 + 0.001 * number, 4)))


def content_of(number: int) -> bytes:
    """The artifact of a record: the same wherever it is made."""
    return hashlib.sha256(str(number).encode()).digest() * 100


def config_of(folder: Path, name: str) -> StudyConfig:
    """A study whose space is beside its records."""
    space = folder / "space.yaml"
    write_atomically(space, SPACE)
    config = study(name=name, space=str(space))
    assert load_space(str(space), image_size=64)
    write_atomically(folder / "study.yaml", config.to_yaml())
    return config


def record_of(number: int) -> Record:
    """One of several states, with numbers that make a front; no two are alike."""
    recipe = recipe_of(number)
    if number % 7 == 3:
        return make_record(recipe, accuracy=None, latency=0.9, state="screened", reason="too slow")
    if number % 7 == 4:
        return make_record(recipe, state="failed", reason="OOM")
    if number % 7 == 5:
        return make_record(recipe, accuracy=0.3, latency=0.4, state="stopped", reason="behind the others")
    latency = 0.1 + (number * 37 % 89) / 100
    return make_record(recipe, accuracy=0.3 + 0.3 * latency + 0.0017 * (number * 53 % 97), latency=latency)


def append(store: Store, folder: Path, number: int) -> None:
    """A record, if it is not there, after its artifact."""
    record = record_of(number)
    if record.id in store.records:
        return
    content = content_of(number)
    place = folder / "artifacts" / record.id
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.onnx").write_bytes(content)
    artifact = Artifact(
        path=f"artifacts/{record.id}/model.onnx", sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
    )
    store.start(record.recipe)
    store.append([record.model_copy(update={"artifact": artifact, "at": None})])


def main(place: str, work: str, name: str, count: int, pause: float) -> None:
    folder = bring(place, work=Path(work)) if is_url(place) else Path(place)
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(folder, name)
    with held(folder, None if is_url(place) else config):
        store = Store(folder)
        store.append([make_baseline().model_copy(update={"at": None})])
        for number in range(count):
            append(store, folder, number)
            print(number, flush=True)
            time.sleep(pause)


def start(place: str | Path, count: int, pause: float, work: Path | None = None) -> subprocess.Popen[str]:
    """Such a driver as a process of its own."""
    command = [sys.executable, "-m", "tests.writer", str(place), str(work or "-"), "cats", str(count), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], number: int) -> None:
    """Returns when it has written that record."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == str(number):
            return
    raise AssertionError(process.communicate())


def ended(process: subprocess.Popen[str]) -> str:
    """What it said, after it ended well."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return errors


if __name__ == "__main__":
    from search.errors import UserError

    try:
        where, beside, named, records, seconds = sys.argv[1:]
        main(where, beside, named, int(records), float(seconds))
    except UserError as error:
        sys.exit(f"error: {error}")
