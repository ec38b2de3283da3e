"""A training in several processes of this machine: each trains on its share of every batch (torch's DDP).

The children are new interpreters, since Ultralytics reads their number from the environment when it is imported. They
are sent the model and the plan in a file, and the first of them asks its parent after every epoch whether to go on:

    child 0 ─▶ "epoch 3 10" ─▶ parent: on_epoch(3, 10, …) ─▶ "average", if it wants the model ─▶ child writes it ─▶ …
            ◀─ "go" ◀─ parent

Children end when their parent does, and all of them when one fails.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import IO

import torch
from torch import nn

from search.stages.finetune import OnEpoch, Plan, plain
from search.stages.portable import pack_job

ROOT = Path(__file__).resolve().parents[2]
JOB, AVERAGE, TRAINED, ERROR, WEIGHTS = "job.pkl", "average.pt", "trained.pt", "error-{}.pkl", "weights-{}.txt"
GRACE, POLL = 5.0, 0.2  # seconds


def train_together(model: nn.Module, plan: Plan, processes: int, on_epoch: OnEpoch) -> nn.Module:
    """The average of a copy of ``model`` that ``processes`` children trained together.

    Raises:
        Exception: what a child raised, or ``on_epoch``.
    """
    plan = replace(plan, threads=max(1, plan.threads // processes))
    with tempfile.TemporaryDirectory(prefix="yolo-front-together-") as name:
        folder = Path(name)
        (folder / JOB).write_bytes(pack_job(model, plan))
        with _children(folder, processes, plan.threads) as (children, questions):
            answers = children[0].stdin
            assert answers is not None
            with suppress(BrokenPipeError):  # it died meanwhile, and has left the reason
                for line in questions:
                    done, total = map(int, line.split()[1:])
                    on_epoch(done, total, lambda: plain(_loaded(model, _average(answers, questions, folder))))
                    _tell(answers, "go")
            _wait(children, folder)
        digests = {(folder / WEIGHTS.format(rank)).read_text() for rank in range(processes)}
        assert len(digests) == 1, "the processes did not end with equal weights"
        return _loaded(model, folder / TRAINED)


@contextmanager
def _children(folder: Path, processes: int, threads: int) -> Generator[tuple[list[subprocess.Popen[str]], IO[str]]]:
    """The running children, and what the first one asks; whatever happens, none is left.

    It asks on a pipe of its own, since libraries write to the standard output.
    """
    children: list[subprocess.Popen[str]] = []
    reading, writing = os.pipe()
    try:
        for rank in range(processes):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "OMP_NUM_THREADS": threads}
            environment = {**os.environ, "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in numbers.items()}}
            child = subprocess.Popen(
                [sys.executable, "-m", "search.stages.together_child", str(folder), str(writing)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[writing] if rank == 0 else [],
                text=True,
            )
            children.append(child)
        os.close(writing)
        threading.Thread(target=_end_with_one, args=(children,), daemon=True).start()
        with os.fdopen(reading) as questions:
            yield children, questions
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _end_with_one(children: list[subprocess.Popen[str]]) -> None:
    """Ends the others when one has failed: they would wait for it."""
    while any(child.poll() is None for child in children):
        if any(child.poll() for child in children):
            time.sleep(GRACE)  # for those that notice by themselves, and say why
            for child in children:
                child.kill()
            return
        time.sleep(POLL)


def _average(answers: IO[str], questions: IO[str], folder: Path) -> Path:
    _tell(answers, "average")
    if not questions.readline():
        raise RuntimeError("a process of the training died")
    return folder / AVERAGE


def _wait(children: list[subprocess.Popen[str]], folder: Path) -> None:
    """Returns when all children have ended well. Raises what went wrong in the one that failed first."""
    codes = [child.wait() for child in children]
    if errors := sorted(folder.glob(ERROR.format("*")), key=lambda file: file.stat().st_mtime_ns):
        raise pickle.loads(errors[0].read_bytes())  # noqa: S301 - our own child's
    if any(codes):
        raise RuntimeError(f"a process of the training died (exit codes {', '.join(map(str, codes))})")


def _loaded(model: nn.Module, file: Path) -> nn.Module:
    """A copy of ``model`` with the weights in ``file``."""
    copy = deepcopy(model).float()
    copy.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return copy


def _tell(stream: IO[str], word: str) -> None:
    stream.write(word + "\n")
    stream.flush()
