"""Ray Tune's view of the search: asks the suggester for tasks until the budget is used up.

Only finished trials with finite values count as finished. Ray's own ``OptunaSearch`` tells Optuna COMPLETE for any
trial that reported once, and leaves one whose value is not a number running for ever.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher

from search.engine.budget import used_up
from search.engine.suggester import Suggester
from search.record import MAXIMIZED
from search.store import Store
from search.study import StudyConfig
from spaces.recipe import Recipe
from spaces.space import Space


class StrictOptunaSearch(Searcher):
    """Hands out starting recipes, then what the suggester chooses, until the budget ends.

    All is built anew from the store at every start, so it needs no storage of its own and a resumed search knows
    all that was measured.

    Args:
        config: the study.
        space: what it searches.
        store: the records so far; the searcher reads it, the driver writes it.
        first: recipes to hand out before anything is suggested.
        trials: how many trials to hand out, or None for no limit.
        deadline: the value of ``time.monotonic()`` after which none is handed out.
        room: how many trials the cluster holds at once, asked anew each time. More are not handed out: a recipe that
            waits for its turn was chosen before those that run could teach anything.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: Space,
        store: Store,
        *,
        first: Iterable[Recipe],
        trials: int | None,
        deadline: float,
        room: Callable[[], float] = lambda: math.inf,
    ) -> None:
        modes = ["max" if objective in MAXIMIZED else "min" for objective in config.objectives]
        super().__init__(metric=list(config.objectives), mode=modes)  # pyright: ignore[reportArgumentType]
        self.suggester = Suggester(config, space, store, first=first)
        self._budget = config.budget
        self._left, self._deadline = trials, deadline
        self._room, self._handed_out = room, set[str]()
        self._thinking: list[float] = []  # seconds of each suggestion

    @property
    def study(self) -> optuna.Study:
        """The Optuna study behind the suggester."""
        return self.suggester.study()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next task, as Ray Tune's config; None if there is no room, FINISHED when the search is over."""
        start = time.monotonic()
        over = self._left == 0 or start > self._deadline or used_up(self._budget, self.suggester.knowledge)
        if not over and len(self._handed_out) >= self._room():
            return None
        task = None if over else self.suggester.suggest(trial_id)
        self._thinking.append(time.monotonic() - start)
        if task is None:
            return Searcher.FINISHED
        if self._left is not None:
            self._left -= 1
        self._handed_out.add(trial_id)
        return {"task": task.model_dump_json()}

    def summary(self) -> dict[str, Any]:
        """What the search looked at, what it believes, and how long it thought, as JSON: for reports."""
        return {**self.suggester.summary(), "suggestion_seconds": statistics.median(self._thinking or [0.0])}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Has the suggester learn how the trial ended, from the records that the driver stored before this call."""
        self._handed_out.discard(trial_id)
        self.suggester.ended(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, for the same reason as in ``save``."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing of worth: the store is the truth, and Tune's snapshot is thrown away."""
        Path(checkpoint_path).write_bytes(b"")

    def restore(self, checkpoint_path: str) -> None:
        """Refused; a search is resumed from its records."""
        raise RuntimeError("a search is resumed from records.jsonl, not from Ray Tune's snapshot")
