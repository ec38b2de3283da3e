"""Every technique alone on one model: a table with a row for each, written as it is made and resumed where it stopped.

The rows are measured by worker processes (``search.alone``); this process alone writes ``catalogue.json`` and the
page beside it. A worker that dies costs its technique's row, which says so, and is replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from search.alone import BASELINE, FINETUNE, Row, Task, measure_alone
from search.data import DataSet, read_data
from search.errors import UserError
from search.measure.host import host_info
from search.report.catalogue import catalogue_page
from search.store import locked, write_atomically
from search.study import StudyConfig
from search.workplace import Workplace
from spaces.combine import plain_recipe
from spaces.techniques import TECHNIQUES, Setting

NAMES = (BASELINE, FINETUNE, *TECHNIQUES)
OnRow = Callable[[Row, int, int], None]  # (row, rows done, rows asked for)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured. ``image_size`` None: the size that the checkpoint was trained with."""

    model: Path
    data: Path
    image_size: int | None = None
    epochs: int = 5
    lr: float = 5e-4
    seed: int = 0
    jobs: int = 1  # worker processes; each trains on one thread
    teacher: Path | None = None  # of a larger model


def chosen_names(patterns: Sequence[str], *, teacher: bool) -> list[str]:
    """The rows that ``patterns`` (such as ``prune-*``) stand for, in the catalogue's order.

    No pattern stands for all, but for what needs a larger ``teacher`` where there is none.

    Raises:
        UserError: a pattern that no technique matches.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in NAMES):
            raise UserError(f"--only {pattern}: no technique has this name; there are {', '.join(NAMES)}")
    if not patterns:
        return [name for name in NAMES if teacher or name != "distill-larger"]
    return [name for name in NAMES if any(fnmatchcase(name, pattern) for pattern in patterns)]


def measure_catalogue(plan: Plan, names: Sequence[str], out: Path, on_row: OnRow) -> dict[str, Any]:
    """Measures the rows of ``names`` that ``out`` does not have yet and returns the whole catalogue.

    Rows with an error are tried again. ``out/cache`` keeps what can be used again, and may be deleted.

    Raises:
        UserError: the model or the data cannot be used, or ``out`` holds a catalogue of something else.
    """
    from search.prepare import check_model, prepare  # torch comes with it

    data = read_data(plan.data)
    if not plan.model.is_file() or plan.model.suffix != ".pt":
        raise UserError(f"--model: there is no .pt checkpoint {plan.model}")
    setting = _setting(plan, data)
    config = StudyConfig(
        name="catalogue", model=str(plan.model), data=plan.data, image_size=setting.image_size, seed=plan.seed
    )
    check_model(config)
    with locked(out / "cache"):
        head = _head(plan, setting, data)
        rows = _known_rows(out, head)
        place = prepare(config, out / "cache", threads=1)
        missing = [name for name in names if name not in rows]
        for done, row in enumerate(_measured(missing, setting, place, plan.jobs), start=1):
            rows[row.technique] = row
            _write(out, head, rows)
            on_row(row, done, len(missing))
        return _write(out, head, rows)


def _setting(plan: Plan, data: DataSet) -> Setting:
    size = plan.image_size or _trained_size(plan.model)
    images = data.images["train"][0].parent  # as if nobody had labelled them
    teacher = str(plan.teacher.resolve()) if plan.teacher else ""
    return Setting(image_size=size, epochs=plan.epochs, lr=plan.lr, images=str(images.resolve()), teacher=teacher)


def _trained_size(model: Path) -> int:
    from search.stages.heads import load_model

    arguments: Any = load_model(model).args
    return int(arguments["imgsz"])


def _head(plan: Plan, setting: Setting, data: DataSet) -> dict[str, Any]:
    """What the rows depend on, without paths of this machine."""
    return {
        "model": plan.model.name,
        "model_sha256": hashlib.sha256(plan.model.read_bytes()).hexdigest(),
        "data": f"{plan.data.resolve().parent.name}/{plan.data.name}",
        "images": {split: len(images) for split, images in data.images.items()},
        "splits": {"training": "train", "calibration": "train", "accuracy": "val"},
        "image_size": setting.image_size,
        "epochs": plan.epochs,
        "lr": plan.lr,
        "seed": plan.seed,
        "plain_recipe": plain_recipe(setting, trained=True).model_dump(mode="json"),
        "command": f"python -m search catalogue --model {plan.model.name} --data {plan.data.name} "
        f"--epochs {plan.epochs} --lr {plan.lr:g} --seed {plan.seed} --jobs {plan.jobs}",
        "host": asdict(host_info()),
    }


def _known_rows(out: Path, head: dict[str, Any]) -> dict[str, Row]:
    """The rows in ``out`` that need not be measured again."""
    path = out / "catalogue.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    for key in ("model_sha256", "data", "images", "image_size", "epochs", "seed", "plain_recipe"):
        if found[key] != head[key]:
            raise UserError(
                f"{out} holds a catalogue of another {key} ({found[key]}, here {head[key]}); choose another --out"
            )
    if found["host"]["id"] != head["host"]["id"]:
        raise UserError(f"{out} holds a catalogue measured on another machine; choose another --out")
    rows = [Row.model_validate({name: row[name] for name in Row.model_fields}) for row in found["rows"]]
    return {row.technique: row for row in rows if not row.error}


def _write(out: Path, head: dict[str, Any], rows: dict[str, Row]) -> dict[str, Any]:
    ordered = [rows[name] for name in NAMES if name in rows]
    catalogue = {**head, "rows": [row.model_dump(mode="json") for row in ordered]}
    write_atomically(out / "catalogue.json", json.dumps(catalogue, indent=2) + "\n")
    write_atomically(out / "catalogue.md", catalogue_page(catalogue))
    return catalogue


def _measured(names: Iterable[str], setting: Setting, place: Workplace, jobs: int) -> Generator[Row]:
    """The rows of ``names`` as they are finished, from ``jobs`` worker processes."""
    tasks = [Task(name=name, setting=setting, place=place) for name in names]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    workers = [_Worker() for _ in range(min(jobs, len(tasks)))]
    for worker in workers:
        idle.put(worker)

    def measure(task: Task) -> Row:
        with _taken(idle) as worker:
            return worker.measure(task)

    with ThreadPoolExecutor(max(1, len(workers))) as threads:
        futures: list[Future[Row]] = [threads.submit(measure, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            threads.shutdown(cancel_futures=True)
            for worker in workers:
                worker.close()


@contextmanager
def _taken(idle: SimpleQueue[_Worker]) -> Generator[_Worker]:
    worker = idle.get()
    try:
        yield worker
    finally:
        idle.put(worker)


class _Worker:
    """A process that measures one technique at a time; a new one takes the place of one that died."""

    def __init__(self) -> None:
        self._pool = self._new()

    def measure(self, task: Task) -> Row:
        try:
            return self._pool.submit(measure_alone, task).result()
        except BrokenProcessPool:
            self._pool = self._new()
            return Row(technique=task.name, error="the process that measured it died; is there enough memory?")

    def close(self) -> None:
        self._pool.shutdown()

    @staticmethod
    def _new() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=get_context("spawn"))  # a fork of a process with threads can hang
