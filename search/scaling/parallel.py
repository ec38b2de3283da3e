"""What a search loses because its workers suggest at once: each suggestion knows less than one after the other would.

The engine itself searches the simulator's worlds (docs/simulate.md) with more and more workers that wait for nothing,
until it has the hypervolume that 64 trials of random search end with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from search.simulate.compare import TRIALS
from search.simulate.engines import ours, random
from search.simulate.recorded import Recorded
from search.simulate.replay import Replay
from search.simulate.surrogate import Surrogate

LIMIT = 8  # times the epochs of random search, after which a target counts as not reached


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """The engine with so many workers, medians over seeds beside the same with the fewest workers.

    ``epochs`` is how many times as many epochs it began until the target, ``speedup`` how many times sooner it was
    there, ``efficiency`` the speed-up as a share of what so many times more workers could give.
    """

    workers: int
    epochs: float
    speedup: float
    efficiency: float
    reached: int
    seeds: int


def parallel(
    recorded: Recorded,
    *,
    workers: Sequence[int],
    seeds: int,
    trials: int = TRIALS,
    on_seed: Callable[[int], None] = lambda seed: None,
) -> list[Parallel]:
    """The engine with each number of workers, the first of which the others are compared with."""
    surrogate, found = Surrogate(recorded), list[list[tuple[int, float] | None]]()
    for seed in range(seeds):
        with threadpool_limits(1):  # the matrices are small: more threads only wait for one another
            found.append(_reached(surrogate, seed, workers, trials))
        on_seed(seed)
    return [_row(count, workers[0], [own[0] for own in found], [own[index] for own in found])
            for index, count in enumerate(workers)]  # fmt: skip


def _reached(surrogate: Surrogate, seed: int, workers: Sequence[int], trials: int) -> list[tuple[int, float] | None]:
    """Epochs begun and seconds passed when the target of a world was reached, for each number of workers."""
    config = surrogate.recorded.config.model_copy(update={"seed": seed, "warm_start": ()})
    space, world = config.load_space(), surrogate.world(seed)
    plain = Replay(random(), world, config, space, workers=1, trials=trials).run()
    reached: list[tuple[int, float] | None] = []
    for count in workers:
        run = Replay(
            ours(), world, config, space, workers=count, epochs=LIMIT * plain.epochs, enough=plain.hypervolume
        ).run()
        epochs, seconds = run.epochs_to(plain.hypervolume), run.seconds_to(plain.hypervolume)
        reached.append(None if epochs is None or seconds is None else (epochs, seconds))
    return reached


def _row(
    count: int, first: int, alone: Sequence[tuple[int, float] | None], own: Sequence[tuple[int, float] | None]
) -> Parallel:
    pairs = [(a, b) for a, b in zip(alone, own, strict=True) if a is not None and b is not None]
    epochs = float(np.median([b[0] / a[0] for a, b in pairs])) if pairs else float("nan")
    speedup = float(np.median([a[1] / b[1] for a, b in pairs])) if pairs else float("nan")
    return Parallel(
        workers=count,
        epochs=epochs,
        speedup=speedup,
        efficiency=speedup * first / count,
        reached=len(pairs),
        seeds=len(own),
    )
