"""Where workers say what they are doing: a small Ray actor that they tell, and that the driver reads.

Nobody waits for it. ``tune.report`` would do the same and have each epoch of each trial wait for Tune's loop, which
may be thinking about the next recipe.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from search.live.snapshot import Activities, Activity, OnStep, Step

NAME = "yolo-front-board"
PATIENCE = 2.0  # seconds that the driver waits for an answer


@ray.remote(num_cpus=0, max_restarts=-1)
class Board:
    """Keeps what each worker said last. Ages are by one clock, its own, since those of nodes differ."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[Activity, float]] = {}

    def tell(self, trunk: str, activity: Activity) -> None:
        """Notes what the worker of a trial does; a step that goes on keeps the time of its beginning."""
        before, since = self._told.get(trunk, (None, 0.0))
        goes_on = before is not None and before.step == activity.step
        self._told[trunk] = (activity, since if goes_on else time.monotonic())

    def end(self, trunk: str) -> None:
        """Forgets a trial."""
        self._told.pop(trunk, None)

    def read(self) -> Activities:
        """All that is known."""
        now = time.monotonic()
        return {trunk: (activity, now - since) for trunk, (activity, since) in self._told.items()}


def start_board() -> Callable[[], Activities | None]:
    """Starts the actor and returns what reads it; None if it gives no answer at the moment."""
    board: Any = Board.options(name=NAME, get_if_exists=True).remote()

    def read() -> Activities | None:
        try:
            return ray.get(board.read.remote(), timeout=PATIENCE)
        except RayError:  # it is being started anew, or its node is gone: there will be a next time
            return None

    return read


@contextmanager
def telling(trunk: str) -> Generator[OnStep]:
    """Yields what a worker calls at each step of its trial, which is forgotten afterwards."""
    board, node = ray.get_actor(NAME), socket.gethostname()

    def on_step(step: Step, done: int, total: int) -> None:
        board.tell.remote(trunk, Activity(step=step, done=done, total=total, node=node))

    try:
        yield on_step
    finally:
        board.end.remote(trunk)
