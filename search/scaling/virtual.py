"""Trials on many virtual nodes, in simulated time: what they queue for, and how much work is left of their time.

Workers do the trials' own work. The driver is one thread: it suggests, decides at rungs and takes in results, one
after the other. A bench times one file at a time. What is not modelled: transfers, and faults.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from search.scaling.lives import Life
from search.simulate.clock import Clock

BUSY = 0.9  # from this share of its time on, a station is what holds the others up


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of what is not a trial's own work.

    ``suggest``, ``decide`` and ``end`` are the driver's, for each trial, rung and result; ``start`` passes between a
    suggestion and the work without keeping the driver. ``quick`` and ``full`` are a bench's for each file, before
    training and after.
    """

    suggest: float = 0.0
    decide: float = 0.0
    end: float = 0.0
    start: float = 0.0
    quick: float = 0.0
    full: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a simulated study went.

    ``efficiency`` is the time that trials need when they never wait, as a share of workers times makespan. The shares
    are of the makespan in which the driver, and a bench on average, were busy.
    """

    workers: int
    benches: int
    trials: int
    makespan: float
    efficiency: float
    driver_share: float
    bench_share: float

    @property
    def limit(self) -> str:
        """What holds the workers up, if a station is busy nearly all of the time."""
        shares = {"bench": self.bench_share, "driver": self.driver_share}
        most = max(shares, key=lambda name: shares[name])
        return most if shares[most] >= BUSY else ""


def undisturbed(life: Life, costs: Costs) -> float:
    """Seconds of a trial that never waits, for the driver neither."""
    return life.before + life.train + life.after + life.quick * costs.quick + life.full * costs.full


class Station:
    """Serves requests in the order of their coming, ``slots`` at a time; ``busy`` is the time of all its service."""

    def __init__(self, clock: Clock, slots: int) -> None:
        self._clock, self._free, self._queue = clock, slots, deque[tuple[float, Callable[[], None]]]()
        self.busy = 0.0

    def serve(self, seconds: float, then: Callable[[], None]) -> None:
        """Has ``then`` called when the request was served, which takes so many seconds after its turn has come."""
        self._queue.append((seconds, then))
        self._take()

    def _take(self) -> None:
        if self._free and self._queue:
            seconds, then = self._queue.popleft()
            self._free -= 1
            self.busy += seconds
            self._clock.after(seconds, partial(self._done, then))

    def _done(self, then: Callable[[], None]) -> None:
        self._free += 1
        self._take()
        then()


class Cluster:
    """Workers, benches and one driver at a study of ``trials`` trials, whose lives are drawn from recorded ones."""

    def __init__(
        self, lives: Sequence[Life], costs: Costs, *, workers: int, benches: int, trials: int, seed: int = 0
    ) -> None:
        self._clock, self._costs, self._random = Clock(), costs, Random(seed)
        self._lives, self._workers, self._benches, self._trials = lives, workers, benches, trials
        self._driver, self._bench = Station(self._clock, 1), Station(self._clock, benches)
        self._left, self._useful = trials, 0.0

    def run(self) -> Outcome:
        """The whole study."""
        for _ in range(self._workers):
            self._next()
        self._clock.run()
        makespan = self._clock.now
        return Outcome(
            workers=self._workers,
            benches=self._benches,
            trials=self._trials,
            makespan=makespan,
            efficiency=self._useful / (self._workers * makespan),
            driver_share=self._driver.busy / makespan,
            bench_share=self._bench.busy / (self._benches * makespan),
        )

    def _next(self) -> None:
        """A worker is free: it takes a trial, or rests for good."""
        if not self._left:
            return
        self._left -= 1
        life = self._random.choice(self._lives)
        self._useful += undisturbed(life, self._costs)
        self._driver.serve(self._costs.suggest, partial(self._go_on, self._steps(life)))

    def _go_on(self, steps: Iterator[tuple[Station | None, float]]) -> None:
        """The next step of a trial, by a station or the worker itself; after the last one the worker is free."""
        step = next(steps, None)
        if step is None:
            self._next()
            return
        station, seconds = step
        serve = self._clock.after if station is None else station.serve
        serve(seconds, partial(self._go_on, steps))

    def _steps(self, life: Life) -> Iterator[tuple[Station | None, float]]:
        costs = self._costs
        yield None, costs.start
        yield None, life.before
        for _ in range(life.quick):
            yield self._bench, costs.quick
        for _ in range(life.rungs):
            yield None, life.train / (life.rungs + 1)
            yield self._driver, costs.decide
        yield None, life.train / (life.rungs + 1)
        yield None, life.after
        for _ in range(life.full):
            yield self._bench, costs.full
        yield self._driver, costs.end


def simulate(
    lives: Sequence[Life], costs: Costs, *, workers: int, benches: int, each: int = 64, seed: int = 0
) -> Outcome:
    """A study of ``each`` trials for every worker; the same seed draws the same lives in the same order."""
    return Cluster(lives, costs, workers=workers, benches=benches, trials=each * workers, seed=seed).run()


def benches_for(lives: Sequence[Life], costs: Costs, *, workers: int, share: float = 0.9) -> int:
    """The fewest benches with which the efficiency is at least ``share`` of what it is with one for every worker.

    With one for every worker nobody waits for them; what is lost then is the driver's doing, and the tail: workers that
    have nothing left to do while the last trials go on.
    """
    least = share * simulate(lives, costs, workers=workers, benches=workers).efficiency
    low, high = 1, workers
    while low < high:
        middle = (low + high) // 2
        enough = simulate(lives, costs, workers=workers, benches=middle).efficiency >= least
        low, high = (low, middle) if enough else (middle + 1, high)
    return low
