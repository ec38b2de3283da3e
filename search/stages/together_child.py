"""One of the processes of ``search.stages.together``: ``python -m search.stages.together_child FOLDER PIPE``."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.distributed as dist

from search.measure.quiet import waiting_for_others
from search.stages.finetune import OnEpoch, Snapshot, silent, train_here
from search.stages.portable import unpack_job
from search.stages.together import AVERAGE, ERROR, JOB, TRAINED, WEIGHTS

TIMEOUT = timedelta(hours=3)  # the others wait while the first one's parent measures at a rung, in its turn


def main(folder: Path, pipe: int) -> None:
    """Trains this process's share, and leaves the result in ``folder``, or what went wrong.

    The first process asks its parent on ``pipe``, a file descriptor.
    """
    rank = int(os.environ["RANK"])
    try:
        _train(folder, rank, pipe)
    except Exception as error:
        temporary = folder / f"error-{rank}.tmp"
        temporary.write_bytes(pickle.dumps(error))
        temporary.replace(folder / ERROR.format(rank))
        raise


def _train(folder: Path, rank: int, pipe: int) -> None:
    model, plan = unpack_job((folder / JOB).read_bytes())
    cuda = plan.device != "cpu"
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=TIMEOUT,
    )
    asks = _asking(folder, os.fdopen(pipe, "w")) if rank == 0 else silent
    if rank != 0:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    averaged = train_here(model, replace(plan, device=str(rank) if cuda else "cpu"), asks)
    digest = hashlib.sha256()
    for value in averaged.state_dict().values():
        digest.update(value.detach().cpu().numpy().tobytes())
    (folder / WEIGHTS.format(rank)).write_text(digest.hexdigest())
    if rank == 0:
        torch.save(_weights(averaged), folder / TRAINED)
    dist.destroy_process_group()


def _asking(folder: Path, out: TextIO) -> OnEpoch:
    """Asks the parent after each epoch, which may work or measure before it answers."""

    @waiting_for_others()
    def ask(done: int, total: int, snapshot: Snapshot) -> None:
        print("epoch", done, total, file=out, flush=True)
        while (word := sys.stdin.readline().strip()) == "average":
            torch.save(_weights(snapshot()), folder / AVERAGE)
            print("written", file=out, flush=True)
        if word != "go":
            os._exit(1)  # the parent has gone

    return ask


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _weights(model: Any) -> dict[str, Any]:
    """Without those of what only the training needed."""
    return {name: value.cpu() for name, value in model.state_dict().items() if not name.startswith("projectors.")}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
